//! Scores without calibration.

use moeprune_core::{BoundScorer, LinearView, StageError, WeightScorer};

use crate::{product, simd::Level};

/// Scores a weight by its absolute value `|W_ij|`.
///
/// Needs no calibration, and is what [`Wanda`](crate::Wanda) falls back to where none arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "has no parameters")]
pub struct Magnitude;

impl WeightScorer for Magnitude {
    fn bind<'a>(&'a self, _: &LinearView<'a>) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        Ok(Box::new(absolute))
    }
}

pub(crate) fn absolute(weights: &[f32], scores: &mut [f32]) {
    product::absolute(Level::detected(), weights, scores);
}
