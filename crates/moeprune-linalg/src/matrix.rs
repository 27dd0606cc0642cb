//! Products of matrices, by the `gemm` crate behind checked slices.

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use crate::Real;

/// Rows of a product that one thread computes at a time, in [`multiply_in_parallel`].
const ROWS: usize = 256;

/// A matrix of numbers that are `row_stride` and `col_stride` apart in a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// Row after row, each `stride` after the one before.
    ///
    /// # Panics
    /// If rows overlap or `values` ends before the last.
    #[must_use]
    pub fn rows(values: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        check(values.len(), rows, cols, stride);
        Self { values, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// Rows of `cols` numbers that follow each other without gaps, as many as there are.
    ///
    /// # Panics
    /// If the last row is not whole.
    #[must_use]
    pub fn dense(values: &'a [T], cols: usize) -> Self {
        let rows = values.len() / cols.max(1);
        assert_eq!(rows * cols, values.len(), "rows of {cols}");
        Self::rows(values, rows, cols, cols)
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// Rows and columns swapped.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// The rows from `start` on, `count` of them.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn some_rows(self, start: usize, count: usize) -> Self {
        assert!(start <= self.rows && count <= self.rows - start, "rows of the matrix");
        let first = (start * self.row_stride).min(self.values.len());
        Self { values: &self.values[first..], rows: count, ..self }
    }

    /// The columns from `start` on, `count` of them.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn some_cols(self, start: usize, count: usize) -> Self {
        self.transposed().some_rows(start, count).transposed()
    }
}

/// What a product is written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// `out := a · b`; `out` is not read.
    Set,
    /// `out := −a · b`; `out` is not read.
    SetNegative,
    /// `out := out + a · b`.
    Add,
    /// `out := out − a · b`.
    Subtract,
}

impl Update {
    /// What `out` and the product are multiplied with.
    fn factors<T: Real>(self) -> (T, T) {
        let minus = T::ZERO - T::ONE;
        match self {
            Self::Set => (T::ZERO, T::ONE),
            Self::SetNegative => (T::ZERO, minus),
            Self::Add => (T::ONE, T::ONE),
            Self::Subtract => (T::ONE, minus),
        }
    }
}

/// Writes `a · b` to `out`, row after row, each `stride` after the one before.
///
/// A product runs on the calling thread. Callers cut their work into pieces whose sizes depend on
/// the matrices alone, hence the bits of a sum do not depend on the number of threads. They may on
/// the processor: `gemm` adds in the order that suits its vector units, with fused multiplication.
///
/// # Panics
/// If the shapes do not fit each other or `out`.
pub fn multiply<T: Real>(
    out: &mut [T],
    stride: usize,
    update: Update,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    check(out.len(), a.rows, b.cols, stride);
    let (kept, factor) = update.factors::<T>();
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    // SAFETY: `check` has seen that every element of `a`, `b` and `out` is in its slice, and the
    // unique borrow of `out` that it overlaps neither of the others.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            stride as isize,
            kept != T::ZERO,
            a.values.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            kept,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// [`multiply`] on all threads, `out` being as wide as `b`: pieces of rows, cut by the shapes alone.
///
/// # Panics
/// If the shapes do not fit each other or `out`.
pub fn multiply_in_parallel<T: Real>(
    out: &mut [T],
    update: Update,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    assert_eq!(out.len(), a.rows * b.cols, "shape of the product");
    if b.cols > 0 {
        out.par_chunks_mut(ROWS * b.cols).enumerate().for_each(|(piece, out)| {
            let rows = out.len() / b.cols;
            multiply(out, b.cols, update, a.some_rows(piece * ROWS, rows), b);
        });
    }
}

/// Panics unless all elements are within `length`, and rows do not overlap.
fn check(length: usize, rows: usize, cols: usize, stride: usize) {
    let needed = if rows == 0 || cols == 0 {
        Some(0)
    } else {
        (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(cols))
    };
    assert!(cols <= stride || rows <= 1, "rows of {cols} overlap at a stride of {stride}");
    assert!(needed.is_some_and(|needed| needed <= length), "{rows}x{cols} do not fit in {length}");
}
