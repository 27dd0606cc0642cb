//! What products with packed weights run on.

use super::kernel::Level;

/// The instruction set that [`multiply_packed`](crate::multiply_packed) uses on this machine: `portable`, `AVX2` or
/// `AVX-512`. Tiles (AMX) are used by those who ask for them, if [`has_tiles`](crate::has_tiles).
///
/// ```
/// assert!(["portable", "AVX2", "AVX-512"].contains(&moeprune_linalg::instruction_set()));
/// ```
#[must_use]
pub fn instruction_set() -> &'static str {
    Level::detected().name()
}
