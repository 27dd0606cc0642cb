//! Rows of a stored weight, to be read or written.

use crate::TensorBytes;

/// Rows of a stored weight: elements along the last axis, counted from 0 over all other axes.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller that has the bytes")]
pub struct Rows<'a> {
    /// Which row of the weight is the first of these.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Shape of the whole weight.
    pub shape: &'a [usize],
    /// Bytes of the main tensor: of these rows only, or of the whole where rows do not follow each
    /// other in it ([`Encoding::row_bytes`](super::Encoding::row_bytes) is `None`).
    pub main: &'a [u8],
    /// The whole companions.
    pub companions: &'a [TensorBytes<'a>],
}

/// [`Rows`] to be written.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller that has the bytes")]
pub struct RowsMut<'a> {
    /// Which row of the weight is the first of these.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Shape of the whole weight.
    pub shape: &'a [usize],
    /// Bytes of the main tensor, as in [`Rows`].
    pub main: &'a mut [u8],
    /// The whole companions, which stay as they are.
    pub companions: &'a [TensorBytes<'a>],
}

impl<'a> Rows<'a> {
    /// Elements that are numbers by themselves, as one row.
    #[must_use]
    pub(crate) fn of_numbers(elements: &'a usize, main: &'a [u8]) -> Self {
        let shape = std::slice::from_ref(elements);
        Self { first: 0, count: 1, shape, main, companions: &[] }
    }

    /// Elements per row.
    #[must_use]
    pub fn cols(&self) -> usize {
        rows_and_cols(self.shape).1
    }

    /// Elements of these rows.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.count * self.cols()
    }

    /// Rows `from` to `from + count` of these; `row_bytes` as the encoding says.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn some(&self, from: usize, count: usize, row_bytes: Option<usize>) -> Self {
        assert!(from + count <= self.count, "{from} and {count} more of {} rows", self.count);
        let main = match row_bytes {
            Some(size) => &self.main[from * size..(from + count) * size],
            None => self.main,
        };
        Rows { first: self.first + from, count, main, ..*self }
    }
}

impl RowsMut<'_> {
    /// The same rows, to be read.
    #[must_use]
    pub fn as_rows(&self) -> Rows<'_> {
        let Self { first, count, shape, ref main, companions } = *self;
        Rows { first, count, shape, main, companions }
    }

    /// Elements per row.
    #[must_use]
    pub fn cols(&self) -> usize {
        rows_and_cols(self.shape).1
    }
}

/// The product of all dimensions but the last, and the last.
pub(super) fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((cols, rows)) => (rows.iter().product(), *cols),
        None => (1, 1),
    }
}
