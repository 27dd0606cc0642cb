//! How large an expert's outputs are.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};

use crate::routing::{means, of_runs, routing};

/// EAN, the expert activation norm: the L2 norm of an expert's output, without the gate, over the
/// tokens routed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutputNorm {
    /// Summed: experts that are chosen often count for more.
    #[default]
    Sum,
    /// The mean.
    Mean,
}

impl ExpertSaliency for OutputNorm {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        let norms = of_runs(layer, |sums| &sums.output_norms, "norms of the experts' outputs")?;
        Ok(match self {
            Self::Sum => norms.to_vec(),
            Self::Mean => means(norms, &routing(layer)?.counts),
        })
    }
}
