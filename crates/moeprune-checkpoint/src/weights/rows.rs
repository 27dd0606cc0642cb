//! Entries along an axis, for tensors that all experts of a layer share.

use moeprune_core::TensorBytes;

use crate::Error;

/// The given rows of a matrix (or entries of a vector), bit for bit, in the given order.
///
/// ```
/// use moeprune_checkpoint::select_rows;
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let router = TensorBytes::new(Dtype::U8, [3, 2], vec![0, 1, 2, 3, 4, 5])?;
/// assert_eq!(select_rows(&router, &[2, 0])?.bytes(), [4, 5, 0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`select_along`] the first axis.
pub fn select_rows(
    tensor: &TensorBytes<'_>,
    rows: &[usize],
) -> Result<TensorBytes<'static>, Error> {
    select_along(tensor, 0, rows)
}

/// The given entries along an axis, bit for bit, in the given order.
///
/// ```
/// use moeprune_checkpoint::select_along;
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let bias = TensorBytes::new(Dtype::U8, [2, 3], vec![0, 1, 2, 3, 4, 5])?;
/// assert_eq!(select_along(&bias, 1, &[2, 0])?.bytes(), [2, 0, 5, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the tensor has no such axis, an entry does not exist, or entries do not begin at whole bytes.
pub fn select_along(
    tensor: &TensorBytes<'_>,
    axis: usize,
    entries: &[usize],
) -> Result<TensorBytes<'static>, Error> {
    let bad = |reason| Error::Weight { operation: "selecting rows", reason };
    let (available, size) = entry_bytes(tensor, axis)?;
    if let Some(row) = entries.iter().find(|entry| **entry >= available) {
        return Err(bad(format!("row {row} of a tensor with {available} rows")));
    }
    let outer: usize = tensor.shape()[..axis].iter().product();
    let mut bytes = Vec::with_capacity(outer * entries.len() * size);
    for block in 0..outer {
        for entry in entries {
            let start = (block * available + entry) * size;
            bytes.extend_from_slice(&tensor.bytes()[start..start + size]);
        }
    }
    let mut shape = tensor.shape().to_vec();
    shape[axis] = entries.len();
    Ok(TensorBytes::new(tensor.dtype(), shape, bytes)?)
}

/// Tensors of one type that differ in the length of one axis at most, joined along it.
///
/// ```
/// use moeprune_checkpoint::{join_along, select_along};
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let bias = TensorBytes::new(Dtype::U8, [2, 3], vec![0, 1, 2, 3, 4, 5])?;
/// let entries = [select_along(&bias, 1, &[2])?, select_along(&bias, 1, &[0])?];
/// assert_eq!(join_along(1, &entries)?, select_along(&bias, 1, &[2, 0])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there are none, they have no such axis, or they differ in type or in another dimension.
pub fn join_along(axis: usize, tensors: &[TensorBytes<'_>]) -> Result<TensorBytes<'static>, Error> {
    let bad = |reason: String| Error::Weight { operation: "joining rows", reason };
    let first = tensors.first().ok_or_else(|| bad("there are none".to_owned()))?;
    let mut parts = Vec::with_capacity(tensors.len());
    let mut shape = first.shape().to_vec();
    let mut length = 0;
    for tensor in tensors {
        let (entries, size) = entry_bytes(tensor, axis)?;
        shape[axis] = entries;
        if tensor.dtype() != first.dtype() || tensor.shape() != shape {
            let (got, dtype) = (tensor.shape(), tensor.dtype());
            let reason = format!("{dtype} {got:?} beside {} {:?}", first.dtype(), first.shape());
            return Err(bad(reason));
        }
        length += entries;
        parts.push((tensor.bytes(), entries * size));
    }
    shape[axis] = length;
    let mut bytes = Vec::with_capacity(parts.iter().map(|(bytes, _)| bytes.len()).sum());
    for block in 0..shape[..axis].iter().product() {
        for (part, size) in &parts {
            bytes.extend_from_slice(&part[block * size..(block + 1) * size]);
        }
    }
    Ok(TensorBytes::new(first.dtype(), shape, bytes)?)
}

/// Entries along an axis, and the bytes of one where it lies together.
fn entry_bytes(tensor: &TensorBytes<'_>, axis: usize) -> Result<(usize, usize), Error> {
    let bad = |reason| Error::Weight { operation: "selecting rows", reason };
    let Some((&available, row_shape)) =
        tensor.shape().get(axis..).and_then(|shape| shape.split_first())
    else {
        return Err(bad(match tensor.shape() {
            [] => "a scalar has no rows".to_owned(),
            shape => format!("a tensor of {shape:?} has no axis {axis}"),
        }));
    };
    let dtype = tensor.dtype();
    let Some(bytes) = dtype.bytes_of_shape(row_shape) else {
        return Err(bad(format!("a row of {row_shape:?} {dtype} is no whole number of bytes")));
    };
    Ok((available, bytes))
}
