//! Zeroing the weights of one layer.

use std::collections::BTreeMap;

use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, Sparsity, StageError, TensorBytes, TensorId,
    TensorSource,
};
use moeprune_score::{ScoreSum, count_above, prune_matrix, score_sum};
use rayon::prelude::*;

use super::{KeptExperts, LayerStatistics, prunable};
use crate::{Error, Pipeline, Recipe, recipe::IdleExperts};

/// The tensors of a layer that were changed.
#[derive(Default)]
pub(crate) struct MaskedLayer {
    pub(crate) linears: BTreeMap<LinearId, TensorBytes<'static>>,
    /// Experts no calibration token reached, as indices of the pruned model.
    pub(crate) idle_experts: Vec<usize>,
}

impl MaskedLayer {
    /// Nothing changed.
    pub(crate) fn unmasked() -> Self {
        Self::default()
    }
}

/// A layer's tensors: the changed ones, and the kept experts' for the rest.
pub(crate) struct MaskedSource<'a> {
    pub(crate) kept: &'a KeptExperts<'a>,
    pub(crate) masked: &'a MaskedLayer,
}

impl TensorSource for MaskedSource<'_> {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        if let TensorId::Layer(_, LayerTensor::Linear(linear)) = id
            && let Some(tensor) = self.masked.linears.get(&linear)
        {
            return Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?);
        }
        self.kept.tensor(id)
    }
}

/// Masks every prunable Linear of a layer, all from the same statistics.
pub(crate) fn mask_layer(
    kept: &KeptExperts<'_>,
    layer: usize,
    ratio: Sparsity,
    inputs: &LayerStatistics,
    recipe: &Recipe,
    pipeline: &Pipeline,
) -> Result<MaskedLayer, Error> {
    let mut masked = MaskedLayer { idle_experts: inputs.idle_experts(), ..Default::default() };
    for shape in prunable(kept, layer, recipe) {
        let expert_is_idle = shape.id.expert().is_some_and(|e| masked.idle_experts.contains(&e));
        if expert_is_idle && recipe.weights.idle_experts == IdleExperts::Dense {
            continue;
        }
        let weight = weight(kept, layer, shape)?;
        let view = view(layer, shape, inputs);
        let pruned = prune_matrix(
            weight,
            &view,
            ratio,
            &*pipeline.scorer,
            &*pipeline.pattern,
            pipeline.rounding,
        )?;
        masked.linears.insert(shape.id, pruned.tensor);
    }
    Ok(masked)
}

/// Percentage of a layer's scores above `multiplier` times their mean (OWL), in two passes over
/// the weights and without holding scores. Linears that no token reached do not count.
pub(crate) fn outlier_percent(
    kept: &KeptExperts<'_>,
    layer: usize,
    multiplier: f64,
    inputs: &LayerStatistics,
    recipe: &Recipe,
    pipeline: &Pipeline,
) -> Result<f64, Error> {
    let linears = prunable(kept, layer, recipe);
    let sums = linears
        .par_iter()
        .map(|&shape| {
            let weight = weight(kept, layer, shape)?;
            Ok(score_sum(&weight, &view(layer, shape, inputs), &*pipeline.scorer)?)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut sum = ScoreSum::default();
    for more in sums {
        sum += more;
    }
    let Some(threshold) = sum.threshold(multiplier) else { return Ok(0.0) };
    let above = linears
        .par_iter()
        .map(|&shape| {
            let weight = weight(kept, layer, shape)?;
            let view = view(layer, shape, inputs);
            Ok(count_above(&weight, &view, &*pipeline.scorer, threshold)?)
        })
        .collect::<Result<Vec<u64>, Error>>()?;
    Ok(sum.percent(above.iter().sum()).unwrap_or(0.0))
}

fn weight<'a>(
    kept: &'a KeptExperts<'_>,
    layer: usize,
    shape: LinearShape,
) -> Result<TensorBytes<'a>, Error> {
    kept.tensor(TensorId::linear(layer, shape.id)).map_err(Error::stage("reading weights", layer))
}

fn view<'a>(layer: usize, shape: LinearShape, inputs: &'a LayerStatistics) -> LinearView<'a> {
    LinearView {
        layer,
        id: shape.id,
        rows: shape.rows,
        cols: shape.cols,
        inputs: inputs.of(shape.id),
    }
}
