//! How often an expert is chosen.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};

use crate::routing::routing;

/// The number of tokens routed to an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct Frequency;

impl ExpertSaliency for Frequency {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        Ok(routing(layer)?.counts.iter().map(|&count| count as f64).collect())
    }
}
