//! Which weights of a matrix go, one bit per weight.

use crate::simd::dispatched;

/// A matrix of bits, set where a weight is to be zeroed.
///
/// Rows are packed one after the other, eight columns per byte, the first column in the highest bit,
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

dispatched! {
    /// Counts the marks of one row.
    pub(crate) fn count_set(mask: &[bool]) -> u64 {
        // As many bytes as a counter of a byte can count, so that a vector holds many.
        let (columns, rest) = mask.as_chunks::<128>();
        let count = |some: &[bool]| u64::from(some.iter().map(|&set| u8::from(set)).sum::<u8>());
        columns.iter().map(|some| count(some)).sum::<u64>() + count(rest)
    }
}

/// Packs one row.
pub(crate) fn pack(mask: &[bool], bytes: &mut [u8]) {
    let (whole, rest) = mask.as_chunks::<8>();
    for (byte, columns) in bytes.iter_mut().zip(whole) {
        // The product moves bit 8k to bit 56 + k for each k from 0 to 7, and no two bits meet.
        let columns = u64::from_be_bytes(columns.map(u8::from));
        *byte = (columns.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
    if let Some(byte) = bytes.get_mut(whole.len()) {
        *byte = rest.iter().enumerate().fold(0, |b, (j, &set)| b | u8::from(set) << (7 - j));
    }
}

#[cfg(test)]
mod tests {
    use super::{BitMask, count_set, pack};
    use crate::simd::same_at_all_levels;

    #[test]
    fn packed_and_counted() {
        for length in [0usize, 1, 7, 8, 9, 127, 128, 129, 255, 1000] {
            let mask: Vec<bool> = (0..length).map(|j| j * j % 11 < 5).collect();
            let count = same_at_all_levels(|level| count_set(level, &mask));
            assert_eq!(count, mask.iter().filter(|&&set| set).count() as u64);
            let mut bytes = vec![0; length.div_ceil(8)];
            pack(&mask, &mut bytes);
            assert_eq!(bytes, BitMask::from_fn(1, length, |_, col| mask[col]).bytes());
        }
        assert_eq!(same_at_all_levels(|level| count_set(level, &[true; 4099])), 4099);
    }
}
