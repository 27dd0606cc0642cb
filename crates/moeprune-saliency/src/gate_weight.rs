//! How much gate weight an expert is given.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};

use crate::routing::of_runs;

/// The sum of the gate weights that an expert was given: a choice counts for as much as it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct GateWeight;

impl ExpertSaliency for GateWeight {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        Ok(of_runs(layer, |sums| &sums.gate_sums, "gate weights")?.to_vec())
    }
}
