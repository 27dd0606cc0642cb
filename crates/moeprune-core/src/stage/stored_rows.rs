//! Matrices of which rows are read into memory of the caller.

use std::{fmt, ops::Range};

use crate::{Error, StageError, encoding::Float};

/// A stored matrix whose elements are numbers by themselves, and whose rows stand one after the other, so that some of
/// them can be read into memory of the caller.
///
/// Returned by [`TensorSource::stored_rows`](crate::TensorSource::stored_rows). Rows may be read in any order, from several
/// threads, as often as they are needed.
///
/// ```
/// use moeprune_core::{encoding::Float, stage::StoredRows};
///
/// let file: Vec<u8> = (0..24).collect();
/// let matrix = StoredRows::new(Float::Bf16, [4, 3], |rows, bytes| {
///     bytes.copy_from_slice(&file[6 * rows.start..6 * rows.end]);
///     Ok(())
/// });
/// let mut row = [0; 6];
/// matrix.read(1..2, &mut row)?;
/// assert_eq!(row, [6, 7, 8, 9, 10, 11]);
/// assert!(matrix.read(4..5, &mut row).is_err());
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
pub struct StoredRows<'a> {
    float: Float,
    shape: [usize; 2],
    read: Box<ReadRows<'a>>,
}

/// Reads some rows into bytes of their length.
type ReadRows<'a> = dyn Fn(Range<usize>, &mut [u8]) -> Result<(), StageError> + Send + Sync + 'a;

impl<'a> StoredRows<'a> {
    /// A matrix `[rows, cols]` of which `read` reads some rows. It is called with rows that there are, and with as many
    /// bytes as they take, all of which it writes: little-endian, row by row.
    #[must_use]
    pub fn new(
        float: Float,
        shape: [usize; 2],
        read: impl Fn(Range<usize>, &mut [u8]) -> Result<(), StageError> + Send + Sync + 'a,
    ) -> Self {
        Self { float, shape, read: Box::new(read) }
    }

    /// The type of its elements.
    #[must_use]
    pub fn float(&self) -> Float {
        self.float
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes of a row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.shape[1].saturating_mul(self.float.size())
    }

    /// Reads some rows: little-endian, row by row.
    ///
    /// # Errors
    /// [`Error::Length`] if there are no such rows, or `bytes` is not as long as they are; if they cannot be read.
    pub fn read(&self, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), StageError> {
        let (expected, got) = (self.shape[0], rows.end.max(rows.start));
        if got > expected || rows.start > rows.end {
            return Err(Error::Length { what: "rows of a matrix", expected, got }.into());
        }
        let (expected, got) = (rows.len().saturating_mul(self.row_bytes()), bytes.len());
        if got != expected {
            return Err(Error::Length { what: "bytes of rows", expected, got }.into());
        }
        (self.read)(rows, bytes)
    }
}

impl fmt::Debug for StoredRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredRows({:?} of {:?})", self.shape, self.float)
    }
}
