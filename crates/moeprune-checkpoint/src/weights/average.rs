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
    let borrowed = |index: usize| {
        let tensor = &tensors[index];
        Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?)
    };
    average_of::<Error>(tensors.len(), borrowed)
}

/// As [`average`], of tensors that are read one after the other: `read` is asked for each index
/// below `count` in order, and only one tensor and the sums (in f32) are held.
///
/// # Errors
/// As [`average`], and those of `read`.
pub fn average_of<'a, E: From<Error>>(
    count: usize,
    mut read: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    let bad = |reason| E::from(Error::Weight { operation: "averaging", reason });
    if count == 0 {
        return Err(bad("no tensors were given".to_owned()));
    }
    let core = |error: moeprune_core::Error| E::from(error.into());
    let first = read(0)?;
    let (dtype, shape) = (first.dtype(), first.shape().to_vec());
    let mut sums = first.to_f32().map_err(core)?;
    drop(first);
    let mut values = vec![0.0; CHUNK.min(sums.len())];
    for index in 1..count {
        let tensor = read(index)?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            return Err(bad(format!(
                "a tensor of {dtype} {shape:?} and one of {} {:?}",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        for (chunk, sums) in sums.chunks_mut(CHUNK).enumerate() {
            let values = &mut values[..sums.len()];
            tensor.decode_f32(chunk * CHUNK, values).map_err(core)?;
            sums.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += value);
        }
    }
    let mut bytes = Vec::with_capacity(sums.len() * dtype.bits() / 8);
    for chunk in sums.chunks_mut(CHUNK) {
        chunk.iter_mut().for_each(|sum| *sum /= count as f32);
        bytes.extend(encode(dtype, chunk)?);
    }
    TensorBytes::new(dtype, shape, bytes).map_err(core)
}

fn encode(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, Error> {
    Ok(TensorBytes::encode(dtype, [values.len()], values)?.into_bytes())
}
