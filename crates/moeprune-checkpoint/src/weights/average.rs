//! The mean of several tensors, for experts that are merged.

use moeprune_core::{Dtype, TensorBytes};

use crate::Error;

/// Elements decoded at a time.
const CHUNK: usize = 1 << 14;

/// The mean of tensors of one shape and type: summed in f32 in the given order, divided by their
/// number, rounded once to the type they have.
///
/// ```
/// use moeprune_checkpoint::average;
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let a = TensorBytes::encode(Dtype::BF16, [2], &[1.0, -2.0])?;
/// let b = TensorBytes::encode(Dtype::BF16, [2], &[2.0, 0.0])?;
/// assert_eq!(average(&[a, b])?.to_f32()?, [1.5, -1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there are no tensors, they differ in shape or type, or the type is not F32, F16 or BF16.
pub fn average(tensors: &[TensorBytes<'_>]) -> Result<TensorBytes<'static>, Error> {
    let bad = |reason| Err(Error::Weight { operation: "averaging", reason });
    let Some(first) = tensors.first() else { return bad("no tensors were given".to_owned()) };
    let (dtype, shape) = (first.dtype(), first.shape());
    if let Some(other) = tensors.iter().find(|t| t.dtype() != dtype || t.shape() != shape) {
        return bad(format!(
            "a tensor of {dtype} {shape:?} and one of {} {:?}",
            other.dtype(),
            other.shape()
        ));
    }
    let (elements, count) = (first.elements(), tensors.len() as f32);
    let mut bytes = Vec::with_capacity(first.bytes().len());
    let mut sums = vec![0.0; CHUNK.min(elements)];
    let mut values = sums.clone();
    for start in (0..elements).step_by(CHUNK) {
        let length = CHUNK.min(elements - start);
        let (sums, values) = (&mut sums[..length], &mut values[..length]);
        first.decode_f32(start, sums)?;
        for tensor in &tensors[1..] {
            tensor.decode_f32(start, values)?;
            sums.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += value);
        }
        sums.iter_mut().for_each(|sum| *sum /= count);
        bytes.extend(encode(dtype, sums)?);
    }
    Ok(TensorBytes::new(dtype, shape, bytes)?)
}

fn encode(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, Error> {
    Ok(TensorBytes::encode(dtype, [values.len()], values)?.into_bytes())
}
