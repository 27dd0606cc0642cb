//! Scores without calibration.

use moeprune_core::{BoundScorer, LinearView, StageError, WeightScorer};

use crate::product::Product;

/// Scores a weight by its absolute value `|W_ij|`.
///
/// Needs no calibration, and is what [`Wanda`](crate::Wanda) falls back to where none arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "has no parameters")]
pub struct Magnitude;

impl WeightScorer for Magnitude {
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        Ok(Box::new(Product { factors: vec![1.0; linear.cols] }))
    }
}
