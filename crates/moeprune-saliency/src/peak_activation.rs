//! The largest activation an expert puts out.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};

use crate::routing::peaks;

/// The largest magnitude in any of an expert's outputs, before the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct PeakActivation;

impl ExpertSaliency for PeakActivation {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        Ok(peaks(layer)?.to_vec())
    }
}
