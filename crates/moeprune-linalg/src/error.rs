//! What can be wrong with a matrix.

/// Why a matrix has no factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A matrix that is not positive definite, to within rounding.
    #[error(
        "the matrix of {size} rows is not positive definite; add more to its diagonal, or look for \
         numbers that are not finite"
    )]
    NotPositiveDefinite {
        /// Rows and columns.
        size: usize,
    },
    /// A number of elements that is not that of the shape.
    #[error("expected a matrix of shape {expected:?}, or a triangle of it, got {got} numbers")]
    Shape {
        /// Rows and columns.
        expected: [usize; 2],
        /// Numbers.
        got: usize,
    },
}
