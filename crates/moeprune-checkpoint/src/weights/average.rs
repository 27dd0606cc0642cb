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
    let Some(first) = tensors.first() else {
        return Err(refused("no tensors were given".to_owned()));
    };
    let (dtype, shape) = (first.dtype(), first.shape());
    tensors.iter().try_for_each(|other| check_alike((dtype, shape), other))?;
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
            add(sums, values);
        }
        bytes.extend(rounded_mean(dtype, sums, count)?);
    }
    Ok(TensorBytes::new(dtype, shape, bytes)?)
}

/// As [`average`] of the tensors that `member` returns for the numbers below `count`, in this
/// order, holding one of them at a time and an accumulator in f32. The result is the same to the
/// bit.
///
/// ```
/// use moeprune_checkpoint::{Error, average, average_of};
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let tensors = [[1.0, -2.0], [2.0, 0.0]].map(|v| TensorBytes::encode(Dtype::BF16, [2], &v));
/// let tensors = tensors.into_iter().collect::<Result<Vec<_>, _>>()?;
/// let streamed = average_of(2, |member| Ok::<_, Error>(tensors[member].clone()))?;
/// assert_eq!(streamed, average(&tensors)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`average`], and what `member` returns.
pub fn average_of<'a, E: From<Error>>(
    count: usize,
    mut member: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    if count == 0 {
        return Err(refused("no tensors were given".to_owned()).into());
    }
    let first = member(0)?;
    let (dtype, shape) = (first.dtype(), first.shape().to_vec());
    let mut sums = first.to_f32().map_err(Error::from)?;
    drop(first);
    let mut values = vec![0.0; CHUNK.min(sums.len())];
    for index in 1..count {
        let tensor = member(index)?;
        check_alike((dtype, &shape), &tensor)?;
        for (chunk, sums) in sums.chunks_mut(CHUNK).enumerate() {
            let values = &mut values[..sums.len()];
            tensor.decode_f32(chunk * CHUNK, values).map_err(Error::from)?;
            add(sums, values);
        }
    }
    let divisor = count as f32;
    let mut bytes = Vec::with_capacity(sums.len() * dtype.bits() / 8);
    for sums in sums.chunks_mut(CHUNK) {
        bytes.extend(rounded_mean(dtype, sums, divisor)?);
    }
    Ok(TensorBytes::new(dtype, shape, bytes).map_err(Error::from)?)
}

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn rounded_mean(dtype: Dtype, sums: &mut [f32], count: f32) -> Result<Vec<u8>, Error> {
    sums.iter_mut().for_each(|sum| *sum /= count);
    Ok(TensorBytes::encode(dtype, [sums.len()], sums)?.into_bytes())
}

fn check_alike((dtype, shape): (Dtype, &[usize]), other: &TensorBytes<'_>) -> Result<(), Error> {
    if other.dtype() == dtype && other.shape() == shape {
        return Ok(());
    }
    Err(refused(format!(
        "a tensor of {dtype} {shape:?} and one of {} {:?}",
        other.dtype(),
        other.shape()
    )))
}

fn refused(reason: String) -> Error {
    Error::Weight { operation: "averaging", reason }
}
