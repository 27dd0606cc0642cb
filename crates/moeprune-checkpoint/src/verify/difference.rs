//! How tensors differ.

use moeprune_core::{StoredWeight, TensorBytes, encoding::Comparison};

use crate::{count_zeros, weights::position};

/// Number of weights that became zero in a tensor whose other weights may be anything.
pub(super) fn became_zero(
    got: &TensorBytes<'_>,
    expected: &TensorBytes<'_>,
) -> Result<u64, String> {
    let zeros = |of: &TensorBytes<'_>| count_zeros(of).map_err(|e| e.to_string());
    alike(got, expected)?;
    Ok(zeros(got)?.saturating_sub(zeros(expected)?))
}

pub(super) fn alike(got: &TensorBytes<'_>, expected: &TensorBytes<'_>) -> Result<(), String> {
    if got.shape() == expected.shape() && got.dtype() == expected.dtype() {
        return Ok(());
    }
    Err(format!(
        "is {} {:?}, expected {} {:?}",
        got.dtype(),
        got.shape(),
        expected.dtype(),
        expected.shape()
    ))
}

/// Number of weights that became zero, or how the tensors differ otherwise.
pub(super) fn difference(
    got: &TensorBytes<'_>,
    expected: &TensorBytes<'_>,
    may_zero: bool,
) -> Result<u64, String> {
    alike(got, expected)?;
    if got.bytes() == expected.bytes() {
        return Ok(0);
    }
    let at = |element| position(got.shape(), element);
    if may_zero && let Ok(expected) = StoredWeight::alone(expected.view()) {
        return match expected.encoding().compare(expected.all(), got.bytes()) {
            Comparison::Zeroed { count } => Ok(count),
            Comparison::Changed { first } => {
                Err(format!("differs from the source at {} and is not zero", at(first)))
            }
        };
    }
    let mut bytes = got.bytes().iter().zip(expected.bytes());
    let first = bytes.position(|(got, expected)| got != expected).unwrap_or_default();
    Err(format!("differs from the source at {}", at(got.dtype().element_at(first))))
}
