//! Which weights of a matrix go, a bit each.

/// A matrix of bits, set where a weight is to be zeroed.
///
/// Rows are packed one after the other, eight columns a byte, the first column in the highest bit,
/// each row padded to a whole byte: what NumPy's `packbits` makes along the last axis.
///
/// ```
/// use moeprune_score::BitMask;
/// let mask = BitMask::from_fn(2, 10, |row, col| row == 1 && col >= 8);
/// assert!(mask.is_set(1, 9));
/// assert_eq!(mask.row(1), [0b0000_0000, 0b1100_0000]);
/// assert_eq!(mask.count(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BitMask {
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl BitMask {
    /// Sets the bits for which `set(row, col)` holds.
    #[must_use]
    pub fn from_fn(rows: usize, cols: usize, mut set: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Self::unset(rows, cols);
        for row in 0..rows {
            for col in 0..cols {
                mask.bytes[row * cols.div_ceil(8) + col / 8] |=
                    u8::from(set(row, col)) << (7 - col % 8);
            }
        }
        mask
    }

    pub(crate) fn unset(rows: usize, cols: usize) -> Self {
        Self { rows, cols, bytes: vec![0; rows * cols.div_ceil(8)] }
    }

    /// The packed rows, to be written by several threads.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether the weight at `(row, col)` goes.
    ///
    /// # Panics
    /// If `row` or `col` is outside the matrix.
    #[must_use]
    pub fn is_set(&self, row: usize, col: usize) -> bool {
        assert!(col < self.cols, "column {col} of {}", self.cols);
        self.row(row)[col / 8] >> (7 - col % 8) & 1 == 1
    }

    /// The bytes of one row; bits beyond the last column are zero.
    ///
    /// # Panics
    /// If `row` is outside the matrix.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let width = self.cols.div_ceil(8);
        &self.bytes[row * width..(row + 1) * width]
    }

    /// All bytes, row after row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of weights that go.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }
}

/// Packs one row.
pub(crate) fn pack(mask: &[bool], bytes: &mut [u8]) {
    for (byte, columns) in bytes.iter_mut().zip(mask.chunks(8)) {
        *byte = columns.iter().enumerate().fold(0, |b, (j, &set)| b | u8::from(set) << (7 - j));
    }
}
