//! How much an expert adds to a token that needs it.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};

use crate::routing::{means, of_runs, routing};

/// REAP: the mean, over the tokens routed to an expert, of gate weight times the L2 norm of its
/// output (arXiv 2510.13999). An expert that is rarely
/// chosen but changes those tokens much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct Reap;

impl ExpertSaliency for Reap {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        let what = "norms of the experts' outputs";
        let norms = of_runs(layer, |sums| &sums.gated_output_norms, what)?;
        Ok(means(norms, &routing(layer)?.counts))
    }
}
