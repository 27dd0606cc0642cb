//! Products of matrices, by the `gemm` crate behind checked slices.
//!
//! A product runs on the calling thread. Callers cut their work into pieces whose sizes depend on
//! the matrices alone, hence the bits of a sum do not depend on the number of threads. They may on
//! the processor: `gemm` adds in the order that suits its vector units, with fused multiplication.

use gemm::{Parallelism, gemm};

/// A matrix of numbers that are `row_stride` and `col_stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row, each `stride` after the one before.
    pub(crate) fn rows(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(values.len(), rows, cols, stride);
        Self { values, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// Rows and columns swapped.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// `out := kept · out + factor · a · b`, with `out` row after row, each `stride` after the one
/// before. With `kept` zero `out` is not read.
///
/// # Panics
/// If the shapes do not fit each other or `out`.
pub(crate) fn multiply(
    out: &mut [f32],
    stride: usize,
    kept: f32,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    check(out.len(), a.rows, b.cols, stride);
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
            kept != 0.0,
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
