//! The factor of an inverse, by Cholesky.
//!
//! Wanted is `H⁻¹ = Uᵀ U`, with `U` upper triangular. With `J` reversing the order, `J H J = L Lᵀ`
//! gives it as `U = J L⁻¹ J`: one Cholesky and one triangular inverse instead of a Cholesky, a full
//! inverse and another Cholesky, and fewer roundings. Reversing both the rows and the columns of a
//! matrix is reversing its values.
//!
//! Both steps go by square blocks. Those on the diagonal are done in `f64`, number by number; all
//! else is products.

use rayon::prelude::*;

use crate::{Error, Matrix, Real, Update, multiply};

/// Rows and columns of a block.
const BLOCK: usize = 128;

/// The upper triangular `U` with `matrix⁻¹ = Uᵀ U`, zero below the diagonal.
///
/// `matrix` is `[size, size]`, row-major; only what is on and above its diagonal is read. The bits
/// do not depend on the number of threads.
///
/// # Errors
/// [`Error::NotPositiveDefinite`] if it is not, to within rounding, or holds what is not finite.
/// [`Error::Shape`] if it has not `size²` elements.
pub fn inverse_factor<T: Real>(mut matrix: Vec<T>, size: usize) -> Result<Vec<T>, Error> {
    if size.checked_mul(size) != Some(matrix.len()) {
        return Err(Error::Shape { expected: [size, size], got: matrix.len() });
    }
    matrix.reverse();
    let inverses = cholesky(&mut matrix, size)?;
    invert(&mut matrix, size, &inverses);
    matrix.reverse();
    Ok(matrix)
}

/// Replaces the lower triangle by that of `L`, the matrix being `L Lᵀ`, except in the blocks on the
/// diagonal, whose inverses it returns. What is above the diagonal is not read and becomes anything.
fn cholesky<T: Real>(matrix: &mut [T], size: usize) -> Result<Vec<Vec<T>>, Error> {
    let mut inverses = Vec::with_capacity(size.div_ceil(BLOCK));
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        let width = end - start;
        let (done, below) = matrix.split_at_mut(end * size);
        let inverse = invert_block(&done[start * size + start..], size, width)
            .ok_or(Error::NotPositiveDefinite { size })?;

        // The columns of L below the block: what stands there times the inverse of the block's
        // transpose.
        let mut panel = vec![T::ZERO; (size - end) * width];
        panel.par_chunks_mut(BLOCK * width).zip(below.par_chunks_mut(BLOCK * size)).for_each(
            |(panel, rows)| {
                let old = Matrix::rows(&rows[start..], rows.len() / size, width, size);
                let inverse = Matrix::rows(&inverse, width, width, width).transposed();
                multiply(panel, width, Update::Set, old, inverse);
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
            multiply(&mut rows[end..], size, Update::Subtract, a, b);
        });
        inverses.push(inverse);
    }
    Ok(inverses)
}

/// The inverse of the lower triangular Cholesky factor of one block, whose rows begin `stride`
/// apart. `None` if the block is not positive definite.
fn invert_block<T: Real>(block: &[T], stride: usize, width: usize) -> Option<Vec<T>> {
    let columns = factor_block(block, stride, width)?;
    // Row i of the inverse is made of the rows above it: all columns at a time.
    let mut inverse = vec![0.0f64; width * width];
    for i in 0..width {
        let (above, row) = inverse.split_at_mut(i * width);
        let row = &mut row[..width];
        for j in 0..i {
            let times = columns[j * width + i];
            for (sum, x) in row[..=j].iter_mut().zip(&above[j * width..]) {
                *sum -= times * x;
            }
        }
        let diagonal = columns[i * width + i];
        row[i] = 1.0;
        row[..=i].iter_mut().for_each(|x| *x /= diagonal);
    }
    Some(inverse.into_iter().map(T::from_f64).collect())
}

/// The Cholesky factor of one block, column after column. What a column takes from the later ones is
/// summed up for all of them at a time, in the order of columns.
fn factor_block<T: Real>(block: &[T], stride: usize, width: usize) -> Option<Vec<f64>> {
    let mut columns = vec![0.0f64; width * width];
    // Sums of products with the columns so far: of row j with the rows from j on.
    let mut sums = vec![0.0f64; width * width];
    for j in 0..width {
        let column = &mut columns[j * width..][..width];
        let rest = |i: usize| block[i * stride + j].to_f64() - sums[j * width + i];
        let square = rest(j);
        if !(square > 0.0 && square.is_finite()) {
            return None;
        }
        let diagonal = square.sqrt();
        column[j] = diagonal;
        for (i, x) in column.iter_mut().enumerate().skip(j + 1) {
            *x = rest(i) / diagonal;
        }
        for row in j + 1..width {
            let times = column[row];
            let sums = &mut sums[row * width..][row..width];
            for (sum, x) in sums.iter_mut().zip(&column[row..]) {
                *sum += x * times;
            }
        }
    }
    Some(columns)
}

/// Replaces what [`cholesky`] made by the inverse of `L`, zero above the diagonal.
fn invert<T: Real>(lower: &mut [T], size: usize, inverses: &[Vec<T>]) {
    // A block column of the inverse depends on no other one.
    let columns: Vec<Vec<T>> = (0..inverses.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|block| invert_column(lower, size, inverses, block))
        .collect();
    lower.fill(T::ZERO);
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
fn invert_column<T: Real>(lower: &[T], size: usize, inverses: &[Vec<T>], block: usize) -> Vec<T> {
    let top = block * BLOCK;
    let width = BLOCK.min(size - top);
    let mut column = vec![T::ZERO; (size - top) * width];
    column[..width * width].copy_from_slice(&inverses[block]);
    let mut sums = vec![T::ZERO; BLOCK * width];
    for (below, inverse) in inverses.iter().enumerate().skip(block + 1) {
        let start = below * BLOCK;
        let count = BLOCK.min(size - start);
        let (done, rest) = column.split_at_mut((start - top) * width);
        let row = Matrix::rows(&lower[start * size + top..], count, start - top, size);
        let done = Matrix::rows(done, start - top, width, width);
        multiply(&mut sums, width, Update::Set, row, done);
        let inverse = Matrix::rows(inverse, count, count, count);
        let sums = Matrix::rows(&sums, count, width, width);
        multiply(rest, width, Update::SetNegative, inverse, sums);
    }
    column
}
