//! Distance between the experts' mean outputs.

use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError};

use crate::Error;

/// `‖ō_i − ō_j‖₂`, with `ō_i` the mean output of expert `i`, before the gate, over the calibration
/// tokens routed to it, and zero for an expert that got none.
///
/// HC-SMoE (arXiv 2410.08589) clusters experts by mean outputs, and merges clusters. It takes means
/// over all tokens; here each expert has its own tokens, which is what one forward pass shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct OutputDistance;

impl ExpertSimilarity for OutputDistance {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let n = layer.experts();
        let routing = layer.routing.ok_or(Error::NoObservation)?;
        if routing.experts() != n {
            return Err(Error::ExpertCount { observed: routing.experts(), router: n }.into());
        }
        let means: Option<Vec<Vec<f64>>> = (0..n).map(|e| routing.mean_output(e)).collect();
        let means = means.ok_or(Error::NoOutputs)?;
        let squared = |i: usize, j: usize| -> f64 {
            means[i].iter().zip(&means[j]).map(|(a, b)| (a - b).powi(2)).sum()
        };
        Ok(DistanceMatrix::from_fn(n, |i, j| squared(i, j).sqrt())?)
    }

    fn needs_observation(&self) -> bool {
        true
    }
}
