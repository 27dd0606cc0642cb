//! Tensors as bytes, and matrices as borrowed rows.

use std::borrow::Cow;

use crate::{Dtype, Error};

/// A tensor as it is stored: little-endian, row-major, borrowed from a file or owned.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorBytes<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> TensorBytes<'a> {
    /// Checks that `bytes` has the size that `dtype` and `shape` ask for.
    ///
    /// # Errors
    /// [`Error::Length`] (in bytes) if it has not, [`Error::Blocks`] if a row ends within a block.
    pub fn new(
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, Error> {
        let (shape, bytes) = (shape.into(), bytes.into());
        let expected = match dtype.bits() {
            Some(bits) => shape
                .iter()
                .try_fold(bits, |bits, &dim| bits.checked_mul(dim))
                .unwrap_or(usize::MAX)
                .div_ceil(8),
            None => dtype
                .bytes_of_shape(&shape)
                .ok_or_else(|| Error::Blocks { dtype, shape: shape.clone() })?,
        };
        if bytes.len() != expected {
            return Err(Error::Length { what: "tensor bytes", expected, got: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The stored bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same tensor, borrowed from this one.
    #[must_use]
    pub fn view(&self) -> TensorBytes<'_> {
        TensorBytes {
            dtype: self.dtype,
            shape: self.shape.clone(),
            bytes: Cow::Borrowed(&self.bytes),
        }
    }

    /// The same with bytes of its own.
    pub(crate) fn to_owned_bytes(&self) -> Result<TensorBytes<'static>, Error> {
        TensorBytes::new(self.dtype(), self.shape(), self.bytes().to_vec())
    }

    /// Takes the bytes, copying only if they were borrowed.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }

    /// Takes the bytes as they are, owned or borrowed.
    #[must_use]
    pub fn into_cow(self) -> Cow<'a, [u8]> {
        self.bytes
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A borrowed row-major matrix of `f32`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatrixView<'a> {
    rows: usize,
    cols: usize,
    values: &'a [f32],
}

impl<'a> MatrixView<'a> {
    /// Checks that there are `rows · cols` values.
    ///
    /// # Errors
    /// [`Error::Length`] if there are not.
    pub fn new(rows: usize, cols: usize, values: &'a [f32]) -> Result<Self, Error> {
        let expected = rows.saturating_mul(cols);
        if values.len() != expected {
            return Err(Error::Length { what: "matrix", expected, got: values.len() });
        }
        Ok(Self { rows, cols, values })
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

    /// Row `i`.
    ///
    /// # Panics
    /// If `i` is not below [`rows`](Self::rows).
    #[must_use]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
}
