//! Sums of products of rows.
//!
//! Sums over many thousand tokens lose too many digits in `f32`, and products in `f64` take twice as long.
//! So pieces of rows are multiplied in the type that they are in, and the products of pieces added in `f64`.

use rayon::prelude::*;

use crate::{Matrix, Real, Update, multiply};

/// Rows whose products are summed in the type that they are in.
const PIECE: usize = 4096;
/// The most columns of a square on the diagonal, of which half would be enough.
const DIAGONAL: usize = 64;
/// The most rows and columns of another square.
const SQUARE: usize = 512;

/// The sum of `xᵀ x` over rows `x`, symmetric to the bit.
///
/// ```
/// use moeprune_linalg::Gram;
///
/// let mut gram = Gram::new(2);
/// gram.add(&[1.0_f32, 2.0, 0.0, 1.0]); // two rows
/// gram.add(&[3.0_f32, 0.0]);
/// assert_eq!(gram.matrix(), [10.0, 2.0, 2.0, 5.0]);
/// ```
#[derive(Debug, Clone)]
pub struct Gram {
    size: usize,
    squares: Vec<Square>,
}

/// Sums of one square on or below the diagonal.
#[derive(Debug, Clone)]
struct Square {
    top: usize,
    left: usize,
    rows: usize,
    cols: usize,
    sums: Vec<f64>,
}

impl Gram {
    /// Of rows of `size` numbers; none so far.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let mut squares = Vec::new();
        cut(0, size, &mut squares);
        // The largest first, so that threads finish together.
        squares.sort_by_key(|square| (usize::MAX - square.sums.len(), square.top, square.left));
        Self { size, squares }
    }

    /// Adds rows that follow each other, on all threads. The bits depend on how rows are distributed over
    /// calls, and not on the number of threads.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn add<T: Real>(&mut self, rows: &[T]) {
        let size = self.size.max(1);
        assert!(rows.len().is_multiple_of(size), "rows of {size}");
        self.squares.par_iter_mut().with_max_len(1).for_each(|square| {
            let mut products = vec![T::ZERO; square.sums.len()];
            for piece in rows.chunks(PIECE * size) {
                let piece = Matrix::dense(piece, size);
                let left = piece.some_cols(square.top, square.rows).transposed();
                let right = piece.some_cols(square.left, square.cols);
                multiply(&mut products, square.cols, Update::Set, left, right);
                add_to(&mut square.sums, &products);
            }
        });
    }

    /// The sum of the diagonal.
    #[must_use]
    pub fn trace(&self) -> f64 {
        let matrix = self.matrix();
        matrix.iter().step_by(self.size + 1).sum()
    }

    /// The sums, `[size, size]`, row-major.
    #[must_use]
    pub fn matrix(&self) -> Vec<f64> {
        let mut matrix = vec![0.0; self.size * self.size];
        for square in &self.squares {
            for (i, row) in square.sums.chunks_exact(square.cols.max(1)).enumerate() {
                let below = square.top + i;
                // Of a square on the diagonal only what is below counts.
                for (j, &sum) in
                    row.iter().enumerate().take((below + 1).saturating_sub(square.left))
                {
                    matrix[below * self.size + square.left + j] = sum;
                    matrix[(square.left + j) * self.size + below] = sum;
                }
            }
        }
        matrix
    }
}

/// The squares between columns `start` and `end`.
fn cut(start: usize, end: usize, squares: &mut Vec<Square>) {
    let size = end - start;
    if size <= DIAGONAL {
        let sums = vec![0.0; size * size];
        squares.push(Square { top: start, left: start, rows: size, cols: size, sums });
        return;
    }
    let middle = start + (size / 2).next_multiple_of(16).min(size - 1);
    cut(start, middle, squares);
    cut(middle, end, squares);
    for (top, rows) in even_pieces(middle, end) {
        for (left, cols) in even_pieces(start, middle) {
            squares.push(Square { top, left, rows, cols, sums: vec![0.0; rows * cols] });
        }
    }
}

/// `start..end` in pieces of about the same size, at most [`SQUARE`]: where each begins, and how long it is.
fn even_pieces(start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = (end - start).div_ceil(SQUARE).max(1);
    let size = (end - start).div_ceil(count).next_multiple_of(16);
    (start..end).step_by(size).map(move |at| (at, size.min(end - at)))
}

/// Adds `aᵀ b` to `sums` (`[a's columns, b's columns]`, row-major) on all threads; `a` and `b` have the same
/// rows. The bits do not depend on the number of threads.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn add_cross_products<T: Real>(sums: &mut [f64], a: &[T], b: &[T], [rows, cols]: [usize; 2]) {
    assert_eq!(sums.len(), rows * cols, "shape of the sums");
    if rows == 0 || cols == 0 {
        return;
    }
    let (a, b) = (Matrix::dense(a, rows), Matrix::dense(b, cols));
    assert_eq!(a.row_count(), b.row_count(), "rows of both");
    sums.par_chunks_mut(CROSS_ROWS * cols).enumerate().for_each(|(piece, sums)| {
        let mut products = vec![T::ZERO; sums.len()];
        for start in (0..a.row_count()).step_by(PIECE) {
            let count = PIECE.min(a.row_count() - start);
            let left = a.some_cols(piece * CROSS_ROWS, sums.len() / cols).some_rows(start, count);
            let right = b.some_rows(start, count);
            multiply(&mut products, cols, Update::Set, left.transposed(), right);
            add_to(sums, &products);
        }
    });
}

/// Rows of the sums that one thread computes at a time, in [`add_cross_products`].
const CROSS_ROWS: usize = 256;

fn add_to<T: Real>(sums: &mut [f64], products: &[T]) {
    for (sum, product) in sums.iter_mut().zip(products) {
        *sum += product.to_f64();
    }
}
