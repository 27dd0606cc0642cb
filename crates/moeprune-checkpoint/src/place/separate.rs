//! A part in a tensor of its own.

use super::{Place, TensorForm, byte_len};
use crate::Error;

impl Place {
    /// The whole of a tensor.
    ///
    /// # Errors
    /// If the tensor's size cannot be counted.
    pub fn separate(tensor: TensorForm<'_>) -> Result<Self, Error> {
        let TensorForm { tensor, dtype, shape } = tensor;
        let bytes = byte_len(dtype, shape).ok_or_else(|| Error::Weight {
            operation: "finding a part",
            reason: format!("{dtype} {shape:?} has no whole number of bytes"),
        })?;
        Ok(Self { tensor, dtype, shape: shape.to_vec(), bytes: 0..bytes, lines: None })
    }
}
