//! NaN and infinite weights.

use moeprune_core::{StoredWeight, TensorBytes};

use crate::Error;

/// Checks that no weight is NaN or infinite, at the speed of memory for BF16, F16 and F32.
///
/// Tensors that are no weights by themselves pass; a weight with companions is for
/// [`check_finite_weight`].
///
/// # Errors
/// [`Error::NotFinite`] with the name given and the position of the first such weight.
pub fn check_finite(name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
    match StoredWeight::alone(tensor.view()) {
        Ok(weight) => check_finite_weight(name, &weight),
        Err(_) => Ok(()),
    }
}

/// As [`check_finite`], of a weight in any encoding.
///
/// # Errors
/// As [`check_finite`].
pub fn check_finite_weight(name: &str, weight: &StoredWeight<'_>) -> Result<(), Error> {
    let Some(element) = weight.first_not_finite() else { return Ok(()) };
    let mut value = [0.0];
    weight.decode(element, &mut value)?;
    let position = position(weight.shape(), element);
    Err(Error::NotFinite { name: name.to_owned(), position, value: value[0] })
}

/// Row and column of an element, or its index in anything but a matrix.
pub(crate) fn position(shape: &[usize], element: usize) -> String {
    match *shape {
        [_, cols] if cols > 0 => format!("row {}, column {}", element / cols, element % cols),
        _ => format!("index {element}"),
    }
}
