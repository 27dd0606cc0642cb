//! Whether a Linear was used at all during calibration.

use moeprune_core::{InputMoments, LinearView};

/// The input moments, unless nothing reached the Linear or all that did was zero: such moments
/// rank no weight above another.
pub(crate) fn heard<'a>(linear: &LinearView<'a>) -> Option<&'a InputMoments> {
    linear.inputs.filter(|m| m.tokens > 0 && m.sum_squares.iter().any(|&sum| sum != 0.0))
}
