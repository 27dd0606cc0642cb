//! The inverse of a matrix as the factor that it is the square of.

use rayon::prelude::*;

use crate::{Error, Matrix, Real, Update, inverse_factor, multiply};

/// Rows that one thread multiplies at a time.
const ROWS: usize = 128;
/// Columns of a product that come from one; the zeros beyond the diagonal of the others are left out.
const COLS: usize = 128;

/// The inverse of a symmetric positive definite matrix `H`, as the upper triangular `U` with
/// `H⁻¹ = Uᵀ U`.
///
/// ```
/// use moeprune_linalg::Inverse;
///
/// let inverse = Inverse::new(vec![4.0, 2.0, 2.0, 3.0], 2)?; // its inverse is [3 -2; -2 4] / 8
/// assert!((inverse.trace() - 7.0_f64 / 8.0).abs() < 1e-15);
/// let mut rows = [1.0_f64, 0.0, 8.0, 8.0];
/// inverse.apply(&mut rows);
/// assert!((rows[0] - 0.375).abs() < 1e-15 && (rows[3] - 2.0).abs() < 1e-15);
/// # Ok::<(), moeprune_linalg::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Inverse<T> {
    size: usize,
    upper: Vec<T>,
}

impl<T: Real> Inverse<T> {
    /// Inverts `[size, size]`, row-major, of which only what is on and above the diagonal is read.
    ///
    /// # Errors
    /// As [`inverse_factor`].
    pub fn new(matrix: Vec<T>, size: usize) -> Result<Self, Error> {
        Ok(Self { size, upper: inverse_factor(matrix, size)? })
    }

    /// Rows and columns.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The sum of the inverse's diagonal: the squares of the factor, summed in `f64`.
    #[must_use]
    pub fn trace(&self) -> f64 {
        let square = |x: &T| x.to_f64() * x.to_f64();
        let rows = self.upper.chunks_exact(self.size.max(1));
        rows.enumerate().map(|(i, row)| row[i..].iter().map(square).sum::<f64>()).sum()
    }

    /// Multiplies rows of `size` numbers with the inverse, on all threads. The bits do not depend on their
    /// number.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn apply(&self, rows: &mut [T]) {
        let size = self.size.max(1);
        assert!(rows.len().is_multiple_of(size), "rows of {size}");
        rows.par_chunks_mut(ROWS * size).for_each(|rows| self.apply_here(rows));
    }

    fn apply_here(&self, rows: &mut [T]) {
        let size = self.size;
        let upper = Matrix::rows(&self.upper, size, size, size);
        let mut half = vec![T::ZERO; rows.len()];
        for start in (0..size).step_by(COLS) {
            let count = COLS.min(size - start);
            let rest = size - start;
            let left = Matrix::dense(rows, size).some_cols(start, rest);
            let right = upper.some_rows(start, count).some_cols(start, rest).transposed();
            multiply(&mut half[start..], size, Update::Set, left, right);
        }
        for start in (0..size).step_by(COLS) {
            let count = COLS.min(size - start);
            let end = start + count;
            let left = Matrix::dense(&half, size).some_cols(0, end);
            let right = upper.some_rows(0, end).some_cols(start, count);
            multiply(&mut rows[start..], size, Update::Set, left, right);
        }
    }

    /// What is on and above the factor's diagonal, row after row: `size (size + 1) / 2` numbers.
    #[must_use]
    pub fn packed(&self) -> Vec<T> {
        let rows = self.upper.chunks_exact(self.size.max(1)).enumerate();
        rows.flat_map(|(i, row)| row[i..].iter().copied()).collect()
    }

    /// What [`packed`](Self::packed) returned.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is of another size.
    pub fn from_packed(packed: &[T], size: usize) -> Result<Self, Error> {
        let expected = [size, size];
        if packed.len() != size * (size + 1) / 2 {
            return Err(Error::Shape { expected, got: packed.len() });
        }
        let mut upper = vec![T::ZERO; size * size];
        let mut rest = packed;
        for (i, row) in upper.chunks_exact_mut(size.max(1)).enumerate() {
            let (values, after) = rest.split_at(size - i);
            row[i..].copy_from_slice(values);
            rest = after;
        }
        Ok(Self { size, upper })
    }
}
