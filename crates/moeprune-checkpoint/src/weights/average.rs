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
    average_of(tensors.len(), |member| {
        let tensor = &tensors[member];
        Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?)
    })
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
    member: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    mean_of(&vec![1.0; count], count as f32, member)
}

/// As [`average_of`], each tensor counting as often as its weight says: `Σ_m w_m T_m / Σ_m w_m`,
/// products and sums in f32.
///
/// ```
/// use moeprune_checkpoint::{Error, weighted_average_of};
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let of = |value| TensorBytes::encode(Dtype::F32, [1], &[value]).map_err(Error::from);
/// let mean = weighted_average_of(&[3, 1], |member| of([1.0, 5.0][member]))?;
/// assert_eq!(mean.to_f32()?, [2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`average_of`], and if all weights are zero.
pub fn weighted_average_of<'a, E: From<Error>>(
    weights: &[u64],
    member: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    let total: f64 = weights.iter().map(|&weight| weight as f64).sum();
    if total == 0.0 {
        return Err(refused("all weights of an average are zero".to_owned()).into());
    }
    // Shares keep the sums in the range of the weights, for any counts.
    let shares: Vec<f32> = weights.iter().map(|&w| (w as f64 / total) as f32).collect();
    mean_of(&shares, 1.0, member)
}

fn mean_of<'a, E: From<Error>>(
    factors: &[f32],
    divisor: f32,
    mut member: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    if factors.is_empty() {
        return Err(refused("no tensors were given".to_owned()).into());
    }
    let first = member(0)?;
    let (dtype, shape) = (first.dtype(), first.shape().to_vec());
    let mut sums = first.to_f32().map_err(Error::from)?;
    sums.iter_mut().for_each(|sum| *sum *= factors[0]);
    drop(first);
    let mut values = vec![0.0; CHUNK.min(sums.len())];
    for (index, &factor) in factors.iter().enumerate().skip(1) {
        let tensor = member(index)?;
        check_alike((dtype, &shape), &tensor)?;
        for (chunk, sums) in sums.chunks_mut(CHUNK).enumerate() {
            let values = &mut values[..sums.len()];
            tensor.decode_f32(chunk * CHUNK, values).map_err(Error::from)?;
            add(sums, values, factor);
        }
    }
    sums.iter_mut().for_each(|sum| *sum /= divisor);
    Ok(TensorBytes::encode(dtype, shape, &sums).map_err(Error::from)?)
}

fn add(sums: &mut [f32], values: &[f32], factor: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * factor);
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
