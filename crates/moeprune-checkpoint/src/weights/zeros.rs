//! Exact zeros.

use moeprune_core::{StoredWeight, TensorBytes};

use crate::Error;

/// Number of weights that are exactly zero, of either sign.
///
/// ```
/// use moeprune_checkpoint::count_zeros;
/// use moeprune_core::{Dtype, TensorBytes};
///
/// let tensor = TensorBytes::encode(Dtype::BF16, [4], &[0.0, -0.0, 1.0, 1e-38])?;
/// assert_eq!(count_zeros(&tensor)?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the type is not F32, F16 or BF16.
pub fn count_zeros(tensor: &TensorBytes<'_>) -> Result<u64, Error> {
    Ok(StoredWeight::alone(tensor.view())?.count_zeros())
}
