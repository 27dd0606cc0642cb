//! The factor of an inverse, by Cholesky.
//!
//! Wanted is `H⁻¹ = Uᵀ U`, with `U` upper triangular. With `J` reversing the order, `J H J = L Lᵀ`
//! gives it as `U = J L⁻¹ J`: one Cholesky and one triangular inverse instead of a Cholesky, a full
//! inverse and another Cholesky, and fewer roundings. Reversing both the rows and the columns of a
//! matrix is reversing its values.
//!
//! Both steps go by square blocks. Those on the diagonal are done in `f64`, number by number; all
//! else is products.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::{Error, Matrix, Real, Update, multiply};

/// Rows and columns of a block: few where the blocks themselves, which are worked on number by number, would
/// be much of the whole.
fn block_of(size: usize) -> usize {
    if size <= 1024 { 64 } else { 128 }
}

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
    let inverses = cholesky(&mut matrix, size, block_of(size))?;
    invert(&mut matrix, size, &inverses);
    matrix.reverse();
    Ok(matrix)
}

/// Replaces the lower triangle by that of `L`, the matrix being `L Lᵀ`, except in the blocks on the
/// diagonal, whose inverses it returns. What is above the diagonal is not read and becomes anything.
fn cholesky<T: Real>(matrix: &mut [T], size: usize, block: usize) -> Result<Vec<Vec<T>>, Error> {
    let mut inverses = Vec::with_capacity(size.div_ceil(block));
    let mut left = Vec::new();
    for start in (0..size).step_by(block) {
        let end = size.min(start + block);
        let width = end - start;
        let (own, below) = matrix[start * size..].split_at_mut(width * size);
        // L left of the block, which all rows below it are multiplied with.
        left.clear();
        own.chunks_exact(size).for_each(|row| left.extend_from_slice(&row[..start]));
        let left = Matrix::rows(&left, width, start, start).transposed();
        let remaining = |rows: &[T]| {
            let count = rows.len() / size;
            let mut columns = vec![T::ZERO; count * width];
            multiply(
                &mut columns,
                width,
                Update::SetNegative,
                Matrix::rows(rows, count, start, size),
                left,
            );
            for (sums, row) in columns.chunks_exact_mut(width).zip(rows.chunks_exact(size)) {
                sums.iter_mut().zip(&row[start..end]).for_each(|(sum, x)| *sum += *x);
            }
            columns
        };
        let inverse =
            invert_block(&remaining(own), width).ok_or(Error::NotPositiveDefinite { size })?;
        let times = Matrix::rows(&inverse, width, width, width).transposed();
        below.par_chunks_mut(ROWS * size).with_max_len(1).for_each(|rows| {
            let columns = remaining(rows);
            let mut panel = vec![T::ZERO; columns.len()];
            multiply(&mut panel, width, Update::Set, Matrix::dense(&columns, width), times);
            for (row, new) in rows.chunks_exact_mut(size).zip(panel.chunks_exact(width)) {
                row[start..end].copy_from_slice(new);
            }
        });
        inverses.push(inverse);
    }
    Ok(inverses)
}

/// Rows that one thread multiplies at a time.
const ROWS: usize = 128;

/// The inverse of the lower triangular Cholesky factor of one block. `None` if the block is not positive
/// definite.
fn invert_block<T: Real>(block: &[T], width: usize) -> Option<Vec<T>> {
    let block: Vec<f64> = block.iter().map(|x| x.to_f64()).collect();
    let columns = factor_block(&block, width)?;
    Some(invert_columns(&columns, width).into_iter().map(T::from_f64).collect())
}

/// The inverse, row after row, of the factor in `columns`. Sums go over one row at a time, so that versions
/// for wider vector units have the same bits.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn invert_columns(columns: &[f64], width: usize) -> Vec<f64> {
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
    inverse
}

/// The Cholesky factor of one block, column after column. What a column takes from the later ones is
/// summed up for all of them at a time, in the order of columns.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn factor_block(block: &[f64], width: usize) -> Option<Vec<f64>> {
    let mut columns = vec![0.0f64; width * width];
    // Sums of products with the columns so far: of row j with the rows from j on.
    let mut sums = vec![0.0f64; width * width];
    for j in 0..width {
        let column = &mut columns[j * width..][..width];
        let rest = |i: usize| block[i * width + j] - sums[j * width + i];
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
    let whole = block_of(size);
    // A block column of the inverse depends on no other one.
    let columns: Vec<Vec<T>> = (0..inverses.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|block| invert_column(lower, size, inverses, block))
        .collect();
    lower.fill(T::ZERO);
    for (block, column) in columns.iter().enumerate() {
        let start = block * whole;
        let width = whole.min(size - start);
        let rows = lower[start * size..].chunks_exact_mut(size);
        for (row, new) in rows.zip(column.chunks_exact(width)) {
            row[start..start + width].copy_from_slice(new);
        }
    }
}

/// The columns of a block of the inverse, from the diagonal down.
fn invert_column<T: Real>(lower: &[T], size: usize, inverses: &[Vec<T>], block: usize) -> Vec<T> {
    let whole = block_of(size);
    let top = block * whole;
    let width = whole.min(size - top);
    let mut column = vec![T::ZERO; (size - top) * width];
    column[..width * width].copy_from_slice(&inverses[block]);
    let mut sums = vec![T::ZERO; whole * width];
    for (below, inverse) in inverses.iter().enumerate().skip(block + 1) {
        let start = below * whole;
        let count = whole.min(size - start);
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
