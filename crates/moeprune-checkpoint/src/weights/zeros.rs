//! Exact zeros.

use moeprune_core::{Dtype, Error as CoreError, TensorBytes};

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
    let bytes = tensor.bytes();
    match tensor.dtype() {
        Dtype::F32 => Ok(bytes.chunks(4 * BLOCK).map(zeros_u32).sum()),
        Dtype::F16 | Dtype::BF16 => Ok(bytes.chunks(2 * BLOCK).map(zeros_u16).sum()),
        other => Err(CoreError::NotFloat(other).into()),
    }
}

/// Elements per block, few enough to count in a `u16` or `u32` lane.
const BLOCK: usize = 4096;

fn zeros_u16(bytes: &[u8]) -> u64 {
    let zero = |b: &[u8]| u16::from(u16::from_le_bytes([b[0], b[1]]) & 0x7fff == 0);
    u64::from(bytes.chunks_exact(2).map(zero).sum::<u16>())
}

fn zeros_u32(bytes: &[u8]) -> u64 {
    let zero =
        |b: &[u8]| u32::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7fff_ffff == 0);
    u64::from(bytes.chunks_exact(4).map(zero).sum::<u32>())
}
