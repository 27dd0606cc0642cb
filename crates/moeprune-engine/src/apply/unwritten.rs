//! A pruned model that is written nowhere.

use moeprune_core::{
    IdleExperts, LayerObservation, LayerTensor, LinearId, LinearShape, ModelSpec, ParameterCounts,
    Plan, Sparsity, StageError, StoredWeight, TensorBytes, TensorId, TensorSource,
};

use super::{
    Inputs,
    layer_job::{LayerJob, view},
    ratios::layer_ratios,
    sequential::sequential_statistics,
    statistics::{InputStatistics, Statistics},
};
use crate::{Error, Job, KeptExperts, Remedy, session::Session, walk::Walker};

/// What a plan makes of a model, worked out weight by weight when it is read: nothing is written,
/// and no more is held than the source and its statistics.
///
/// Statistics come from an observation of the unpruned model, so that weights are masked as with
/// `statistics = "stored"`, or from calibration blocks, as with `statistics = "sequential"`: the blocks are then
/// run once through the layers as they are zeroed, and the sums are held. Either way the model is the one that
/// [`Job::apply`] writes with these inputs.
#[derive(Debug)]
pub struct UnwrittenModel<'a> {
    layer_job: LayerJob<'a>,
    /// One per layer; `None` if no weight is zeroed.
    ratios: Option<Vec<Sparsity>>,
    /// Under the expert indices of the pruned model; empty without statistics.
    stored: Vec<LayerObservation>,
}

impl<'a> UnwrittenModel<'a> {
    /// The plan must leave nothing open.
    ///
    /// # Errors
    /// If the plan needs statistics that the inputs lack, its ratios cannot be allocated, or the weight stage
    /// is a reconstruction.
    pub fn new(
        kept: &'a KeptExperts<'a>,
        plan: &'a Plan,
        inputs: Inputs<'_>,
        job: &mut Job<'a>,
    ) -> Result<Self, Error> {
        let Job { pipeline, execution, .. } = *job;
        let promises = plan.promises().unwrap_or_default();
        let expert_ratios =
            plan.unstructured.as_ref().map_or(&[][..], |asked| asked.expert_ratios.as_slice());
        let layer_job =
            LayerJob { kept, promises, pipeline, execution, expert_ratios, observed: None };
        let Some(asked) = &plan.unstructured else {
            return Ok(Self { layer_job, ratios: None, stored: Vec::new() });
        };
        let statistics = Statistics::new(kept.source(), plan, inputs, pipeline)?;
        let execution = &match statistics {
            Statistics::Calibration(_) if pipeline.weights.needs().hessians => {
                let problem = "which inputs come together is not held of a model that is written nowhere, and \
                               the weights that stay are changed by that";
                return Err(Error::refused(problem, Remedy::ScoreOrWrite));
            }
            Statistics::Calibration(calibration) => job.for_blocks(calibration, true)?,
            _ => execution.clone(),
        };
        let walker =
            &mut Walker { session: &mut Session::in_memory(), progress: &mut *job.progress };
        let run = LayerJob { execution, ..layer_job };
        let ratios = layer_ratios(asked, run, &statistics, walker)?;
        let stored = match statistics {
            Statistics::None => Vec::new(),
            Statistics::Calibration(_) => sequential_statistics(run, &statistics, &ratios, walker)?,
            Statistics::Stored(_) => {
                (0..ratios.len()).filter_map(|layer| statistics.stored(kept, layer)).collect()
            }
        };
        Ok(Self { layer_job, ratios: Some(ratios), stored })
    }

    /// The pruned model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        self.layer_job.kept.spec()
    }

    /// Removed and zero weights of each layer as a share of its original Linears, as asked for.
    #[must_use]
    pub fn layer_sparsity(&self) -> Vec<f64> {
        let source = self.layer_job.kept.source().spec();
        let all = |linears: Vec<LinearShape>| -> u64 {
            let counted = linears.iter().filter(|linear| linear.prunable);
            counted.map(LinearShape::parameters).sum()
        };
        (0..source.layers.len())
            .map(|layer| {
                let before = all(source.linears(layer)) as f64;
                let left = all(self.spec().linears(layer)) as f64;
                (before - left + self.zeros(layer)) / before.max(1.0)
            })
            .collect()
    }

    /// All parameters but removed and zero ones.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let zeros: f64 = (0..self.spec().layers.len()).map(|layer| self.zeros(layer)).sum();
        ParameterCounts::of(self.spec()).all.saturating_sub(zeros.round() as u64)
    }

    /// Weights of a layer that are zeroed, up to rounding.
    fn zeros(&self, layer: usize) -> f64 {
        let Some(ratios) = &self.ratios else { return 0.0 };
        let zeroed = |shape: &LinearShape| {
            let ratio = self.layer_job.pipeline.weights.pattern().fixed_ratio();
            let asked = self.layer_job.ratio_of(layer, shape.id, ratios[layer]);
            shape.parameters() as f64 * ratio.unwrap_or(asked).value()
        };
        self.layer_job.prunable(layer).iter().map(zeroed).sum()
    }

    fn masked(
        &self,
        layer: usize,
        shape: LinearShape,
        ratio: Sparsity,
        weight: StoredWeight<'_>,
    ) -> Result<TensorBytes<'static>, Error> {
        let moments = self.stored.get(layer).map_or(InputStatistics::None, InputStatistics::Stored);
        let linear = view(layer, shape, &moments)?;
        let ratio = self.layer_job.ratio_of(layer, shape.id, ratio);
        self.layer_job.masking(linear, None, ratio).of_stored(weight)
    }

    fn is_left_dense(&self, layer: usize, linear: LinearId) -> Result<bool, Error> {
        let Some(expert) = linear.expert() else { return Ok(false) };
        let moments = self.stored.get(layer).map_or(InputStatistics::None, InputStatistics::Stored);
        let dense = self.layer_job.promises.idle_experts == IdleExperts::Dense;
        Ok(dense && !moments.reached(self.layer_job.expert_input(layer, expert))?)
    }
}

impl TensorSource for UnwrittenModel<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let weight = self.layer_job.kept.weight(id)?;
        let (Some(ratios), TensorId::Layer(layer, LayerTensor::Linear(linear))) =
            (&self.ratios, id)
        else {
            return Ok(weight);
        };
        let Some(shape) = self.layer_job.shape_of(layer, linear) else { return Ok(weight) };
        if self.is_left_dense(layer, linear)? {
            return Ok(weight);
        }
        let masked = self.masked(layer, shape, ratios[layer], weight.view())?;
        Ok(weight.with_main(masked)?)
    }
}
