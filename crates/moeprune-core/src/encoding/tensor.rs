//! Tensors that are weights by themselves, decoded and encoded.

use super::{Rows, RowsMut, of};
use crate::{Dtype, Error, TensorBytes};

impl Dtype {
    /// Whether elements can be decoded to `f32` weights [by themselves](super::of): F32, F16
    /// and BF16.
    #[must_use]
    pub fn is_weight(self) -> bool {
        of(self).is_ok()
    }
}

impl TensorBytes<'_> {
    /// Encodes `values` as `dtype`, rounding to nearest even.
    ///
    /// # Errors
    /// If `dtype` is not F32, F16 or BF16, or the shape does not fit.
    pub fn encode(
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        values: &[f32],
    ) -> Result<TensorBytes<'static>, Error> {
        let encoding = of(dtype)?;
        let mut bytes = vec![0; dtype.bytes_of(values.len()).ok_or(Error::NotFloat(dtype))?];
        let (shape_of_one, main) = (&[values.len()], &mut bytes);
        let rows = RowsMut { first: 0, count: 1, shape: shape_of_one, main, companions: &[] };
        encoding.encode(values, rows, 0..values.len())?;
        TensorBytes::new(dtype, shape, bytes)
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
        let encoding = of(self.dtype())?;
        let (got, expected) = (self.elements(), start.saturating_add(out.len()));
        if expected > got {
            return Err(Error::Length { what: "tensor range", expected, got });
        }
        encoding.decode(Rows::of_numbers(&got, self.bytes()), start..expected, out);
        Ok(())
    }
}
