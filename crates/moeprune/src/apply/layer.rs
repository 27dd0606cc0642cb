//! One layer: watched, scored, zeroed and written, with one expert in memory at a time.
//!
//! The statistics of every Linear come from the layer's own weights, and the next layer reads what
//! the zeroed ones give (`docs/method.md`). Both are walked side by side: the trunk on all blocks
//! with the weights as they are; the trunk's Linears are zeroed; the trunk again. Then for each
//! expert: read, run on the tokens that the first walk routed to it, zeroed, run on the tokens of
//! the second, written.

use std::{collections::BTreeMap, ops::ControlFlow};

use candle_core::{DType, Device};
use moeprune_capture::{LayerObserver, LayerRun, ObserverOptions, Watch};
use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, MlpProjection, Sparsity, StageError,
    TensorBytes, TensorId, TensorSource,
};
use moeprune_model::{Expert, LayerTrunk, for_each_expert};
use moeprune_score::{ScoreSum, count_above, prune_matrix, score_sum};

use super::{
    KeptExperts,
    statistics::{Moments, Walk},
    writing::Output,
};
use crate::{Error, Pipeline, Recipe, recipe::IdleExperts};

/// Routing is of no use any more once the experts are chosen.
const INPUTS: ObserverOptions = ObserverOptions { routing: false, inputs: true };
const DEVICE: Device = Device::Cpu;
const DTYPE: DType = DType::F32;

/// What is pruned, and how.
#[derive(Clone, Copy)]
pub(super) struct Stages<'a> {
    pub(super) kept: &'a KeptExperts<'a>,
    pub(super) recipe: &'a Recipe,
    pub(super) pipeline: &'a Pipeline,
}

impl Stages<'_> {
    /// The Linears of a layer that may be zeroed.
    pub(super) fn prunable(&self, layer: usize) -> Vec<LinearShape> {
        let mut linears = self.kept.spec().linears(layer);
        linears.retain(|l| self.recipe.weights.prune_router || l.id != LinearId::Router);
        linears
    }

    /// About the bytes of a layer's Linears.
    pub(super) fn weight_bytes(&self, layer: usize) -> u64 {
        2 * self.prunable(layer).iter().map(LinearShape::parameters).sum::<u64>()
    }

    fn experts(&self, layer: usize) -> Vec<usize> {
        (0..self.kept.spec().layers[layer].moe().map_or(0, |moe| moe.experts)).collect()
    }

    fn shape_of(&self, layer: usize, id: LinearId) -> Option<LinearShape> {
        self.prunable(layer).into_iter().find(|shape| shape.id == id)
    }

    fn expert(&self, stored: &dyn TensorSource, layer: usize, e: usize) -> Result<Expert, Error> {
        Ok(Expert::load(stored, self.kept.spec(), layer, e, &DEVICE, DTYPE)?)
    }

    fn trunk(&self, source: &dyn TensorSource, layer: usize) -> Result<LayerTrunk, Error> {
        Ok(LayerTrunk::load(source, self.kept.spec(), layer, &DEVICE, DTYPE)?)
    }

    fn observer(&self, layer: usize) -> Result<LayerObserver, Error> {
        Ok(LayerObserver::new(self.kept.spec(), layer, INPUTS)?)
    }

    fn mask(
        &self,
        layer: usize,
        shape: LinearShape,
        weight: TensorBytes<'_>,
        ratio: Sparsity,
        moments: &Moments<'_>,
    ) -> Result<TensorBytes<'static>, Error> {
        let pruned = prune_matrix(
            weight,
            &view(layer, shape, moments)?,
            ratio,
            &*self.pipeline.scorer,
            &*self.pipeline.pattern,
            self.pipeline.rounding,
        )?;
        Ok(pruned.tensor)
    }
}

/// Zeroes weights of a layer, writes all of it, and takes `walk` past it. Returns the experts that
/// no calibration token reached.
pub(super) fn prune_layer(
    stages: Stages<'_>,
    walk: &mut Walk<'_>,
    output: &mut Output,
    layer: usize,
    ratio: Sparsity,
    watch: Watch<'_>,
) -> Result<Vec<usize>, Error> {
    let kept = stages.kept;
    let mut observer = stages.observer(layer)?;
    let mut dense = match walk {
        Walk::Forward(hidden) => {
            let trunk = stages.trunk(kept, layer)?;
            Some(LayerRun::watch_only(&trunk, layer, hidden, &mut observer, watch)?)
        }
        _ => None,
    };
    let stored = walk.stored(kept, layer);
    let mut trunk = MaskedTrunk { kept, linears: BTreeMap::new() };
    for shape in stages.prunable(layer).into_iter().filter(|shape| shape.id.expert().is_none()) {
        let moments = Moments::of_layer(&dense, &observer, stored.as_ref());
        let masked = stages.mask(layer, shape, weight(kept, layer, shape)?, ratio, &moments)?;
        trunk.linears.insert(shape.id, masked);
        stop_if_asked(watch)?;
    }
    let mut pruned = match walk {
        Walk::Forward(hidden) => {
            let trunk = stages.trunk(&trunk, layer)?;
            Some(LayerRun::advance(&trunk, layer, std::mem::take(hidden), None, watch)?)
        }
        _ => None,
    };
    output.put_trunk(kept, layer, &trunk.linears)?;
    if dense.is_none() {
        watch_bytes(trunk.linears.values(), watch)?;
    }
    drop(trunk);

    let mut idle = Vec::new();
    output.write_behind(kept, layer, |write| {
        for_each_expert(kept, layer, &stages.experts(layer), |mut expert| {
            let e = expert.expert;
            stop_if_asked(watch)?;
            if let Some(dense) = &mut dense
                && dense.tokens(e) > 0
            {
                let loaded = stages.expert(&expert, layer, e)?;
                dense.expert(e, &loaded, Some(&mut observer), watch)?;
            }
            let moments = Moments::of_layer(&dense, &observer, stored.as_ref());
            let reached = moments.reached(e)?;
            if !reached {
                idle.push(e);
            }
            if reached || stages.recipe.weights.idle_experts != IdleExperts::Dense {
                for (projection, weight) in MlpProjection::ALL.iter().zip(&mut expert.weights) {
                    let id = LinearId::Expert(e, *projection);
                    let Some(shape) = stages.shape_of(layer, id) else { continue };
                    let dense = std::mem::replace(weight, nothing()?);
                    *weight = stages.mask(layer, shape, dense, ratio, &moments)?;
                }
            }
            match &mut pruned {
                Some(pruned) if pruned.tokens(e) > 0 => {
                    pruned.expert(e, &stages.expert(&expert, layer, e)?, None, watch)?;
                }
                Some(_) => {}
                None => watch_bytes(expert.weights.iter(), watch)?,
            }
            for (projection, weight) in MlpProjection::ALL.into_iter().zip(expert.weights) {
                write(LinearId::Expert(e, projection), weight)?;
            }
            Ok(())
        })
    })?;
    if let (Walk::Forward(hidden), Some(pruned)) = (walk, pruned) {
        *hidden = pruned.finish()?;
    }
    Ok(idle)
}

/// The percentage of a layer's scores above `multiplier` times their mean (OWL), weights as they
/// are; takes `walk` past the layer. Linears that no token reached do not count.
///
/// No score is held: the layer's weights are gone through once for the mean and once more for the
/// count.
pub(super) fn measure_layer(
    stages: Stages<'_>,
    walk: &mut Walk<'_>,
    layer: usize,
    multiplier: f64,
    watch: Watch<'_>,
) -> Result<f64, Error> {
    let kept = stages.kept;
    let scorer = &*stages.pipeline.scorer;
    let mut observer = stages.observer(layer)?;
    let mut run = match walk {
        Walk::Forward(hidden) => {
            let trunk = stages.trunk(kept, layer)?;
            let hidden = std::mem::take(hidden);
            Some(LayerRun::advance(&trunk, layer, hidden, Some(&mut observer), watch)?)
        }
        _ => None,
    };
    let stored = walk.stored(kept, layer);
    let prunable = stages.prunable(layer);
    let (trunk, experts): (Vec<LinearShape>, Vec<LinearShape>) =
        prunable.iter().partition(|shape| shape.id.expert().is_none());
    let mut sums: BTreeMap<LinearId, ScoreSum> = BTreeMap::new();
    for &shape in &trunk {
        let moments = Moments::of_layer(&run, &observer, stored.as_ref());
        let weight = weight(kept, layer, shape)?;
        sums.insert(shape.id, score_sum(&weight, &view(layer, shape, &moments)?, scorer)?);
        stop_if_asked(watch)?;
    }
    for_each_expert(kept, layer, &stages.experts(layer), |expert| {
        let e = expert.expert;
        stop_if_asked(watch)?;
        if let Some(run) = &mut run
            && run.tokens(e) > 0
        {
            run.expert(e, &stages.expert(&expert, layer, e)?, Some(&mut observer), watch)?;
        }
        let moments = Moments::of_layer(&run, &observer, stored.as_ref());
        for &shape in experts.iter().filter(|shape| shape.id.expert() == Some(e)) {
            let weight = expert_weight(&expert, layer, shape)?;
            sums.insert(shape.id, score_sum(&weight, &view(layer, shape, &moments)?, scorer)?);
        }
        if run.is_none() {
            watch_bytes(expert.weights.iter(), watch)?;
        }
        Ok::<(), Error>(())
    })?;
    let mut sum = ScoreSum::default();
    for shape in &prunable {
        sum += sums.get(&shape.id).copied().unwrap_or_default();
    }
    let mut above = 0;
    if let Some(threshold) = sum.threshold(multiplier) {
        let moments = Moments::of_layer(&run, &observer, stored.as_ref());
        for &shape in &trunk {
            let weight = weight(kept, layer, shape)?;
            above += count_above(&weight, &view(layer, shape, &moments)?, scorer, threshold)?;
        }
        for_each_expert(kept, layer, &stages.experts(layer), |expert| {
            stop_if_asked(watch)?;
            for &shape in experts.iter().filter(|s| s.id.expert() == Some(expert.expert)) {
                let weight = expert_weight(&expert, layer, shape)?;
                above += count_above(&weight, &view(layer, shape, &moments)?, scorer, threshold)?;
            }
            Ok::<(), Error>(())
        })?;
    }
    if let (Walk::Forward(hidden), Some(run)) = (walk, run) {
        *hidden = run.finish()?;
    }
    Ok(sum.percent(above).unwrap_or(0.0))
}

/// A layer without its experts: the zeroed Linears, and the kept experts' source for the rest.
struct MaskedTrunk<'a> {
    kept: &'a KeptExperts<'a>,
    linears: BTreeMap<LinearId, TensorBytes<'static>>,
}

impl TensorSource for MaskedTrunk<'_> {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        if let TensorId::Layer(_, LayerTensor::Linear(linear)) = id
            && let Some(tensor) = self.linears.get(&linear)
        {
            return Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?);
        }
        self.kept.tensor(id)
    }
}

fn weight<'a>(
    source: &'a dyn TensorSource,
    layer: usize,
    shape: LinearShape,
) -> Result<TensorBytes<'a>, Error> {
    source.tensor(TensorId::linear(layer, shape.id)).map_err(Error::stage("reading weights", layer))
}

fn expert_weight<'a>(
    expert: &'a dyn TensorSource,
    layer: usize,
    shape: LinearShape,
) -> Result<TensorBytes<'a>, Error> {
    weight(expert, layer, shape)
}

fn view<'a>(
    layer: usize,
    shape: LinearShape,
    moments: &Moments<'a>,
) -> Result<LinearView<'a>, Error> {
    let LinearShape { id, rows, cols } = shape;
    Ok(LinearView { layer, id, rows, cols, inputs: moments.of(id)? })
}

/// Stands where a weight was that is being zeroed.
fn nothing() -> Result<TensorBytes<'static>, Error> {
    Ok(TensorBytes::new(moeprune_core::Dtype::U8, [0], Vec::new())?)
}

fn stop_if_asked(watch: Watch<'_>) -> Result<(), Error> {
    count(watch, 0)
}

/// Where no token runs, work is counted in bytes.
fn watch_bytes<'t>(
    tensors: impl Iterator<Item = &'t TensorBytes<'t>>,
    watch: Watch<'_>,
) -> Result<(), Error> {
    count(watch, tensors.map(|tensor| tensor.bytes().len() as u64).sum())
}

fn count(watch: Watch<'_>, more: u64) -> Result<(), Error> {
    match watch(more) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
