//! Numbers of things, as people write them.

use std::fmt::Display;

/// A number with a noun in its singular or, with an `s`, its plural.
///
/// ```
/// use moeprune_core::plural;
///
/// assert_eq!(plural(1_usize, "expert"), "1 expert");
/// assert_eq!(plural(0_u64, "layer"), "0 layers");
/// ```
#[must_use]
pub fn plural<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
