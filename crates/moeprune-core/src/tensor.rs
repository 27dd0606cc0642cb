//! Tensors as bytes, and matrices as borrowed rows.

use std::{borrow::Cow, fmt};

use crate::{
    Error,
    encoding::{self, Row, RowMut},
};

/// Element type of a stored tensor, named as the safetensors format names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the type it names")]
#[expect(non_camel_case_types, reason = "the format's own names")]
#[non_exhaustive]
pub enum Dtype {
    BOOL,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    F4,
    F6_E2M3,
    F6_E3M2,
    C64,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
}

impl Dtype {
    /// Every type, in no meaningful order.
    pub const ALL: [Self; 22] = [
        Self::BOOL,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::F8_E4M3,
        Self::F8_E5M2,
        Self::F8_E8M0,
        Self::F4,
        Self::F6_E2M3,
        Self::F6_E3M2,
        Self::C64,
        Self::F8_E4M3FNUZ,
        Self::F8_E5M2FNUZ,
    ];

    /// Size of one element in bits.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::F4 => 4,
            Self::F6_E2M3 | Self::F6_E3M2 => 6,
            Self::BOOL
            | Self::U8
            | Self::I8
            | Self::F8_E4M3
            | Self::F8_E5M2
            | Self::F8_E8M0
            | Self::F8_E4M3FNUZ
            | Self::F8_E5M2FNUZ => 8,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 16,
            Self::U32 | Self::I32 | Self::F32 => 32,
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => 64,
        }
    }

    /// Whether elements can be decoded to `f32` weights [by themselves](encoding::of): F32, F16
    /// and BF16.
    #[must_use]
    pub fn is_weight(self) -> bool {
        encoding::of(self).is_ok()
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

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
    /// [`Error::Length`] (in bytes) if it has not.
    pub fn new(
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, Error> {
        let (shape, bytes) = (shape.into(), bytes.into());
        let bits = shape
            .iter()
            .try_fold(dtype.bits(), |bits, &dim| bits.checked_mul(dim))
            .unwrap_or(usize::MAX);
        let expected = bits.div_ceil(8);
        if bytes.len() != expected {
            return Err(Error::Length { what: "tensor bytes", expected, got: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Encodes `values` as `dtype`, rounding to nearest even.
    ///
    /// # Errors
    /// If `dtype` is not F32, F16 or BF16, or the shape does not fit.
    pub fn encode(
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        values: &[f32],
    ) -> Result<TensorBytes<'static>, Error> {
        let encoding = encoding::of(dtype)?;
        let mut bytes = vec![0; (values.len() * encoding.bits()).div_ceil(8)];
        let row = RowMut { index: 0, main: &mut bytes, companions: &[] };
        encoding.encode(values, row, 0)?;
        TensorBytes::new(dtype, shape, bytes)
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

    /// All elements as `f32` (exact for F32, F16 and BF16).
    ///
    /// # Errors
    /// [`Error::NotFloat`] for any other type.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; self.elements()];
        self.decode_f32(0, &mut values)?;
        Ok(values)
    }

    /// Decodes `out.len()` elements from element `start` on, for reading a tensor row by row.
    ///
    /// # Errors
    /// [`Error::NotFloat`] for a type that is not F32, F16 or BF16; [`Error::Length`] if the
    /// range is outside the tensor.
    pub fn decode_f32(&self, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let encoding = encoding::of(self.dtype)?;
        let (got, expected) = (self.elements(), start.saturating_add(out.len()));
        if expected > got {
            return Err(Error::Length { what: "tensor range", expected, got });
        }
        encoding.decode(Row { index: 0, main: &self.bytes, companions: &[] }, start, out);
        Ok(())
    }
}

/// A row-major matrix of `f32` that somebody else owns.
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
