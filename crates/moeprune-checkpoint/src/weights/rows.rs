//! Rows of a matrix, for the router of a model that loses experts.

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
/// If the tensor has no rows to choose from, a row does not exist, or rows do not begin at whole
/// bytes.
pub fn select_rows(
    tensor: &TensorBytes<'_>,
    rows: &[usize],
) -> Result<TensorBytes<'static>, Error> {
    let bad = |reason| Error::Weight { operation: "selecting rows", reason };
    let Some((&available, row_shape)) = tensor.shape().split_first() else {
        return Err(bad("a scalar has no rows".to_owned()));
    };
    let bits = row_shape.iter().product::<usize>() * tensor.dtype().bits();
    if bits % 8 != 0 {
        let dtype = tensor.dtype();
        return Err(bad(format!("a row of {row_shape:?} {dtype} is no whole number of bytes")));
    }
    let size = bits / 8;
    let mut bytes = Vec::with_capacity(rows.len() * size);
    for &row in rows {
        if row >= available {
            return Err(bad(format!("row {row} of a tensor with {available} rows")));
        }
        bytes.extend_from_slice(&tensor.bytes()[row * size..(row + 1) * size]);
    }
    let mut shape = tensor.shape().to_vec();
    shape[0] = rows.len();
    Ok(TensorBytes::new(tensor.dtype(), shape, bytes)?)
}
