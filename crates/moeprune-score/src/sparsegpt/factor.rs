//! From a Hessian to what the columns are walked by.
//!
//! Wanted is `H⁻¹ = Uᵀ U`, with `U` upper triangular. With `J` reversing the order, `J H J = L Lᵀ`
//! gives it as `U = J L⁻¹ J`: one Cholesky and one triangular inverse instead of a Cholesky, a full
//! inverse and another Cholesky, and fewer roundings. Reversing both the rows and the columns of a
//! matrix is reversing its values.
//!
//! Both steps go by square blocks. Those on the diagonal are done in `f64`, number by number; all
//! else is products.

use rayon::prelude::*;

use crate::matmul::{Matrix, multiply};

/// Rows and columns of a block.
const BLOCK: usize = 128;

/// `matrix` was not positive definite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotPositive;

/// The upper triangular `U` with `matrix⁻¹ = Uᵀ U`, zero below the diagonal.
///
/// `matrix` is `[size, size]`, row-major; only what is on and above its diagonal is read.
pub(super) fn inverse_factor(mut matrix: Vec<f32>, size: usize) -> Result<Vec<f32>, NotPositive> {
    matrix.reverse();
    let inverses = cholesky(&mut matrix, size)?;
    invert(&mut matrix, size, &inverses);
    matrix.reverse();
    Ok(matrix)
}

/// Replaces the lower triangle by that of `L`, the matrix being `L Lᵀ`, except in the blocks on the
/// diagonal, whose inverses it returns. What is above the diagonal is not read and becomes anything.
fn cholesky(matrix: &mut [f32], size: usize) -> Result<Vec<Vec<f32>>, NotPositive> {
    let mut inverses = Vec::with_capacity(size.div_ceil(BLOCK));
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        let width = end - start;
        let (done, below) = matrix.split_at_mut(end * size);
        let inverse = invert_block(&done[start * size + start..], size, width)?;

        // The columns of L below the block: what stands there times the inverse of the block's
        // transpose.
        let mut panel = vec![0.0; (size - end) * width];
        panel.par_chunks_mut(BLOCK * width).zip(below.par_chunks_mut(BLOCK * size)).for_each(
            |(panel, rows)| {
                let old = Matrix::rows(&rows[start..], rows.len() / size, width, size);
                let inverse = Matrix::rows(&inverse, width, width, width).transposed();
                multiply(panel, width, 0.0, 1.0, old, inverse);
                for (row, new) in rows.chunks_exact_mut(size).zip(panel.chunks_exact(width)) {
                    row[start..end].copy_from_slice(new);
                }
            },
        );

        // What remains to be factored, up to the diagonal.
        below.par_chunks_mut(BLOCK * size).enumerate().for_each(|(chunk, rows)| {
            let (above, count) = (chunk * BLOCK, rows.len() / size);
            let a = Matrix::rows(&panel[above * width..], count, width, width);
            let b = Matrix::rows(&panel, above + count, width, width).transposed();
            multiply(&mut rows[end..], size, 1.0, -1.0, a, b);
        });
        inverses.push(inverse);
    }
    Ok(inverses)
}

/// The inverse of the lower triangular Cholesky factor of one block, whose rows begin `stride`
/// apart.
fn invert_block(block: &[f32], stride: usize, width: usize) -> Result<Vec<f32>, NotPositive> {
    let mut factor = vec![0.0f64; width * width];
    for i in 0..width {
        let (above, row) = factor.split_at_mut(i * width);
        for j in 0..=i {
            let other = if j < i { &above[j * width..][..j] } else { &row[..j] };
            let products = row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
            let rest = f64::from(block[i * stride + j]) - products;
            row[j] = if j < i {
                rest / above[j * width + j]
            } else if rest > 0.0 && rest.is_finite() {
                rest.sqrt()
            } else {
                return Err(NotPositive);
            };
        }
    }
    // Row i of the inverse is made of the rows above it: all columns at a time.
    let mut inverse = vec![0.0f64; width * width];
    for i in 0..width {
        let (above, row) = inverse.split_at_mut(i * width);
        let row = &mut row[..width];
        for j in 0..i {
            let times = factor[i * width + j];
            for (sum, x) in row[..=j].iter_mut().zip(&above[j * width..]) {
                *sum -= times * x;
            }
        }
        let diagonal = factor[i * width + i];
        row[i] = 1.0;
        row[..=i].iter_mut().for_each(|x| *x /= diagonal);
    }
    Ok(inverse.into_iter().map(|x| x as f32).collect())
}

/// Replaces what [`cholesky`] made by the inverse of `L`, zero above the diagonal.
fn invert(lower: &mut [f32], size: usize, inverses: &[Vec<f32>]) {
    // A block column of the inverse depends on no other one.
    let columns: Vec<Vec<f32>> = (0..inverses.len())
        .into_par_iter()
        .map(|block| invert_column(lower, size, inverses, block))
        .collect();
    lower.fill(0.0);
    for (block, column) in columns.iter().enumerate() {
        let start = block * BLOCK;
        let width = BLOCK.min(size - start);
        let rows = lower[start * size..].chunks_exact_mut(size);
        for (row, new) in rows.zip(column.chunks_exact(width)) {
            row[start..start + width].copy_from_slice(new);
        }
    }
}

/// The columns of a block of the inverse, from the diagonal down.
fn invert_column(lower: &[f32], size: usize, inverses: &[Vec<f32>], block: usize) -> Vec<f32> {
    let top = block * BLOCK;
    let width = BLOCK.min(size - top);
    let mut column = vec![0.0; (size - top) * width];
    column[..width * width].copy_from_slice(&inverses[block]);
    let mut sums = vec![0.0; BLOCK * width];
    for (below, inverse) in inverses.iter().enumerate().skip(block + 1) {
        let start = below * BLOCK;
        let count = BLOCK.min(size - start);
        let (done, rest) = column.split_at_mut((start - top) * width);
        let row = Matrix::rows(&lower[start * size + top..], count, start - top, size);
        let done = Matrix::rows(done, start - top, width, width);
        multiply(&mut sums, width, 0.0, 1.0, row, done);
        let inverse = Matrix::rows(inverse, count, count, count);
        multiply(rest, width, 0.0, -1.0, inverse, Matrix::rows(&sums, count, width, width));
    }
    column
}

#[cfg(test)]
mod tests {
    use super::{NotPositive, inverse_factor};

    /// Products of random rows, and something on the diagonal.
    fn positive(size: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let rows: Vec<f32> = (0..size * size).map(|_| uniform()).collect();
        let entry = |i: usize, j: usize| {
            let products =
                rows.chunks_exact(size).map(|x| f64::from(x[i]) * f64::from(x[j])).sum::<f64>();
            (products + if i == j { 0.1 * size as f64 } else { 0.0 }) as f32
        };
        (0..size * size).map(|at| entry(at / size, at % size)).collect()
    }

    #[test]
    fn inverse_of_the_matrix() {
        for size in [1, 2, 127, 128, 129, 300] {
            let matrix = positive(size);
            let upper = inverse_factor(matrix.clone(), size).unwrap();
            for i in 0..size {
                assert!(upper[i * size..][..i].iter().all(|&x| x == 0.0), "below the diagonal");
                assert!(upper[i * size + i] > 0.0);
            }
            // U H Uᵀ is the identity, too.
            let product = |a: &[f32], b: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
                let entry = |i: usize, j: usize| {
                    (0..size).map(|k| f64::from(a[i * size + k]) * b(k, j)).sum()
                };
                (0..size * size).map(|at| entry(at / size, at % size)).collect()
            };
            let left = product(&upper, &|i, j| f64::from(matrix[i * size + j]));
            let left: Vec<f32> = left.into_iter().map(|x| x as f32).collect();
            let both = product(&left, &|i, j| f64::from(upper[j * size + i]));
            for (at, x) in both.into_iter().enumerate() {
                let expected = if at / size == at % size { 1.0 } else { 0.0 };
                assert!((x - expected).abs() < 2e-5, "{size}: {x} at {at}");
            }
        }
    }

    #[test]
    fn matrices_that_have_none() {
        for bad in [[0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 2.0, 1.0], [f32::NAN, 0.0, 0.0, 1.0]] {
            assert_eq!(inverse_factor(bad.to_vec(), 2), Err(NotPositive), "{bad:?}");
        }
        let mut late = positive(300);
        late[5 * 300 + 5] = -1.0;
        assert_eq!(inverse_factor(late, 300), Err(NotPositive));
        assert_eq!(inverse_factor(Vec::new(), 0), Ok(Vec::new()));
    }
}
