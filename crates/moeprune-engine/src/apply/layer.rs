//! One layer: watched, scored, zeroed and written, with one expert in memory at a time.
//!
//! The statistics of every Linear come from the layer's own weights, and the next layer reads what
//! the zeroed ones give (`docs/method.md`). Both are walked side by side: the trunk on all blocks
//! with the weights as they are; the trunk's Linears are zeroed; the trunk again. Then for each
//! expert: read, run on the tokens that the first walk routed to it, zeroed, run on the tokens of
//! the second, written.

use std::{collections::BTreeMap, ops::ControlFlow};

use moeprune_capture::{LayerObserver, LayerRun, ObserverOptions, TokenBlocks, Watch};
use moeprune_core::{
    ExpertRatio, IdleExperts, InputHessian, LayerObservation, LinearId, LinearShape, LinearView,
    MlpProjection, Promises, Sparsity, TensorId,
};
use moeprune_model::{for_each_expert, for_each_uploaded_expert};
use moeprune_score::ScoreSum;

use super::{
    KeptExperts,
    held::{HeldExpert, HeldTrunk, HeldWeight},
    in_place::{Masking, scores_above, sum_of_scores},
    statistics::Moments,
    writing::Output,
};
use crate::{
    Error, Execution, Pipeline,
    walk::{AtLayer, Route},
};

/// What is pruned, how, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages<'a> {
    pub(super) kept: &'a KeptExperts<'a>,
    pub(super) promises: Promises,
    pub(super) pipeline: &'a Pipeline,
    pub(super) on: &'a Execution,
    /// Experts that have a ratio of their own.
    pub(super) expert_ratios: &'a [ExpertRatio],
}

impl<'a> Stages<'a> {
    /// The Linears of a layer that may be zeroed.
    pub(super) fn prunable(&self, layer: usize) -> Vec<LinearShape> {
        let mut linears = self.kept.spec().linears(layer);
        linears.retain(|linear| self.may_zero(linear));
        linears
    }

    fn may_zero(&self, linear: &LinearShape) -> bool {
        let routers_too = self.promises.zero_routers;
        linear.prunable || routers_too && linear.id == LinearId::Router
    }

    /// About the bytes of a layer's Linears.
    pub(super) fn weight_bytes(&self, layer: usize) -> u64 {
        2 * self.prunable(layer).iter().map(LinearShape::parameters).sum::<u64>()
    }

    fn experts(&self, layer: usize) -> Vec<usize> {
        (0..self.kept.spec().layers[layer].moe().map_or(0, |moe| moe.experts)).collect()
    }

    pub(super) fn shape_of(&self, layer: usize, id: LinearId) -> Option<LinearShape> {
        let shape = self.kept.spec().part(TensorId::linear(layer, id))?.linear_shape()?;
        self.may_zero(&shape).then_some(shape)
    }

    /// Routing is of no use any more once the experts are chosen.
    fn observer(&self, layer: usize, hessians: bool) -> Result<LayerObserver, Error> {
        let options = ObserverOptions { routing: false, inputs: true, hessians };
        Ok(LayerObserver::new(self.kept.spec(), layer, options)?)
    }

    /// The ratio of a Linear, given its layer's.
    pub(super) fn ratio_of(&self, layer: usize, linear: LinearId, ratio: Sparsity) -> Sparsity {
        let Some(expert) = linear.expert() else { return ratio };
        let source = self.kept.survivor(layer, expert).map_or(expert, |s| s.source);
        let own = self.expert_ratios.iter().find(|e| (e.layer, e.expert) == (layer, source));
        own.and_then(|own| Sparsity::new(own.ratio).ok()).unwrap_or(ratio)
    }

    /// Hands over a layer's experts, each read, and brought to the device, while the one before it
    /// is in use.
    fn for_each_expert(
        &self,
        layer: usize,
        mut visit: impl FnMut(HeldExpert<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (kept, compute, experts) = (self.kept, self.on.compute(), self.experts(layer));
        if !compute.holds_stored() {
            return for_each_expert(kept, layer, &experts, |e| visit(HeldExpert::Host(e)));
        }
        for_each_uploaded_expert(kept, kept.spec(), compute, layer, &experts, |e| {
            visit(HeldExpert::Device(e))
        })
    }

    /// A walk over the layers of the model that is left.
    pub(super) fn route<'r>(
        &'r self,
        step: &'r str,
        blocks: Option<&'r TokenBlocks>,
        work: &'r [u64],
    ) -> Route<'r> {
        let Stages { kept, on, .. } = *self;
        let (spec, micro_batch) = (kept.spec(), on.micro_batch());
        Route { source: kept, spec, blocks, micro_batch, execution: on, step, work }
    }

    pub(super) fn masking<'m>(
        &self,
        linear: LinearView<'m>,
        hessian: Option<&'m InputHessian>,
        ratio: Sparsity,
    ) -> Masking<'m>
    where
        'a: 'm,
    {
        let Stages { pipeline, on, .. } = *self;
        Masking { linear, hessian, ratio, weights: &pipeline.weights, on }
    }

    fn score_sum(
        &self,
        layer: usize,
        shape: LinearShape,
        weight: &HeldWeight<'_>,
        moments: &Moments<'_>,
    ) -> Result<ScoreSum, Error> {
        sum_of_scores(weight, &view(layer, shape, moments)?, &self.pipeline.weights, self.on)
    }

    fn count_above(
        &self,
        layer: usize,
        shape: LinearShape,
        weight: &HeldWeight<'_>,
        moments: &Moments<'_>,
        threshold: f64,
    ) -> Result<u64, Error> {
        scores_above(
            weight,
            &view(layer, shape, moments)?,
            &self.pipeline.weights,
            threshold,
            self.on,
        )
    }
}

/// Zeroes weights of a layer, writes all of it, and replaces its inputs by its outputs.
pub(super) fn prune_layer(
    stages: Stages<'_>,
    at: &mut AtLayer<'_>,
    stored: Option<&LayerObservation>,
    output: &mut Output,
    ratio: Sparsity,
) -> Result<PrunedLayer, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let (layer, kept) = (*layer, stages.kept);
    let mut observer = stages.observer(layer, stages.pipeline.weights.needs().hessians)?;
    let mut trunk = HeldTrunk::load(stages, layer)?;
    let mut dense = match hidden.as_deref() {
        Some(hidden) => Some(trunk.run(stages, layer, |trunk| {
            Ok(LayerRun::watch_only(trunk, layer, hidden, &mut observer, watch)?)
        })?),
        _ => None,
    };
    let mut pruned_layer = PrunedLayer::default();
    let mut masked = stages.prunable(layer);
    masked.retain(|shape| shape.id.expert().is_none());
    for &shape in &masked {
        let hessian = observer.hessian_of(shape.id)?;
        let moments = Moments::of_layer(&dense, &observer, stored);
        let linear = view(layer, shape, &moments)?;
        let masking = stages.masking(linear, hessian, ratio);
        pruned_layer.count(&masking);
        trunk.mask(layer, shape, &masking)?;
        stop_if_asked(watch)?;
    }
    observer.forget_hessians(None);
    let mut pruned = match hidden.take() {
        Some(hidden) => Some(trunk.run(stages, layer, |trunk| {
            Ok(LayerRun::advance(trunk, layer, hidden, None, watch)?)
        })?),
        _ => None,
    };
    let linears = trunk.into_masked(stages, &masked)?;
    output.put_trunk(kept, layer, &linears)?;
    if dense.is_none() {
        watch_bytes(linears.values().map(|linear| linear.bytes().len()), watch)?;
    }
    drop(linears);

    output.write_behind(kept, stages.on.compute(), layer, |write| {
        stages.for_each_expert(layer, |mut expert| {
            let e = expert.index();
            stop_if_asked(watch)?;
            if let Some(dense) = &mut dense
                && dense.tokens(e) > 0
            {
                expert.run(stages, layer, |expert| {
                    Ok(dense.expert(e, expert, Some(&mut observer), watch)?)
                })?;
            }
            let moments = Moments::of_layer(&dense, &observer, stored);
            let reached = moments.reached(e)?;
            if !reached {
                pruned_layer.idle.push(e);
            }
            if reached || stages.promises.idle_experts != IdleExperts::Dense {
                for projection in MlpProjection::ALL {
                    let id = LinearId::Expert(e, projection);
                    let Some(shape) = stages.shape_of(layer, id) else { continue };
                    let hessian = observer.hessian_of(id)?;
                    let linear = view(layer, shape, &moments)?;
                    let ratio = stages.ratio_of(layer, id, ratio);
                    let masking = stages.masking(linear, hessian, ratio);
                    pruned_layer.count(&masking);
                    expert.mask(projection, &masking)?;
                }
            }
            observer.forget_hessians(Some(e));
            match &mut pruned {
                Some(pruned) if pruned.tokens(e) > 0 => expert
                    .run(stages, layer, |expert| Ok(pruned.expert(e, expert, None, watch)?))?,
                Some(_) => {}
                None => watch_bytes([expert_bytes(stages, layer, e)], watch)?,
            }
            for (projection, weight) in expert.into_finished()? {
                write(LinearId::Expert(e, projection), weight)?;
            }
            Ok(())
        })
    })?;
    **hidden = pruned.map(LayerRun::finish).transpose()?;
    Ok(pruned_layer)
}

/// What there is to say about a layer that was pruned.
#[derive(Debug, Default)]
pub(super) struct PrunedLayer {
    /// Experts that no calibration token reached.
    pub(super) idle: Vec<usize>,
    /// Linears that too few tokens reached to make up for the weights that go: they were scored.
    pub(super) scored: u64,
}

impl PrunedLayer {
    fn count(&mut self, masking: &Masking<'_>) {
        self.scored += u64::from(masking.falls_back());
    }
}

/// The percentage of a layer's scores above `multiplier` times their mean (OWL), weights as they
/// are; replaces the layer's inputs by its outputs. Linears that no token reached do not count.
///
/// No score is held: the layer's weights are gone through once for the mean and once more for the
/// count.
pub(super) fn measure_layer(
    stages: Stages<'_>,
    at: &mut AtLayer<'_>,
    stored: Option<&LayerObservation>,
    multiplier: f64,
) -> Result<f64, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let layer = *layer;
    let mut observer = stages.observer(layer, false)?;
    let held = HeldTrunk::load(stages, layer)?;
    let mut run = match hidden.take() {
        Some(hidden) => Some(held.run(stages, layer, |trunk| {
            Ok(LayerRun::advance(trunk, layer, hidden, Some(&mut observer), watch)?)
        })?),
        _ => None,
    };
    let prunable = stages.prunable(layer);
    let (trunk, experts): (Vec<LinearShape>, Vec<LinearShape>) =
        prunable.iter().partition(|shape| shape.id.expert().is_none());
    let of_expert = |e| experts.iter().copied().filter(move |s| s.id.expert() == Some(e));
    let mut sums: BTreeMap<LinearId, ScoreSum> = BTreeMap::new();
    // Where a device has room for them, experts stay between the two times they are gone through.
    let mut held_experts = stages.on.holds_layer().then(Vec::new);
    for &shape in &trunk {
        let moments = Moments::of_layer(&run, &observer, stored);
        let weight = held.weight(layer, shape)?;
        sums.insert(shape.id, stages.score_sum(layer, shape, &weight, &moments)?);
        stop_if_asked(watch)?;
    }
    stages.for_each_expert(layer, |expert| {
        let e = expert.index();
        stop_if_asked(watch)?;
        if let Some(run) = &mut run
            && run.tokens(e) > 0
        {
            expert.run(stages, layer, |expert| {
                Ok(run.expert(e, expert, Some(&mut observer), watch)?)
            })?;
        }
        let moments = Moments::of_layer(&run, &observer, stored);
        for shape in of_expert(e) {
            let LinearId::Expert(_, projection) = shape.id else { continue };
            let weight = expert.weight(projection)?;
            sums.insert(shape.id, stages.score_sum(layer, shape, &weight, &moments)?);
        }
        if run.is_none() {
            watch_bytes([expert_bytes(stages, layer, e)], watch)?;
        }
        if let Some(held) = &mut held_experts {
            held.push(expert);
        }
        Ok(())
    })?;
    let mut sum = ScoreSum::default();
    for shape in &prunable {
        sum += sums.get(&shape.id).copied().unwrap_or_default();
    }
    let mut above = 0;
    if let Some(threshold) = sum.threshold(multiplier) {
        let moments = Moments::of_layer(&run, &observer, stored);
        for &shape in &trunk {
            let weight = held.weight(layer, shape)?;
            above += stages.count_above(layer, shape, &weight, &moments, threshold)?;
        }
        let mut count = |expert: HeldExpert<'_>| {
            stop_if_asked(watch)?;
            for shape in of_expert(expert.index()) {
                let LinearId::Expert(_, projection) = shape.id else { continue };
                let weight = expert.weight(projection)?;
                above += stages.count_above(layer, shape, &weight, &moments, threshold)?;
            }
            Ok(())
        };
        match held_experts {
            Some(held) => held.into_iter().try_for_each(&mut count)?,
            None => stages.for_each_expert(layer, &mut count)?,
        }
    }
    **hidden = run.map(LayerRun::finish).transpose()?;
    Ok(sum.percent(above).unwrap_or(0.0))
}

pub(super) fn view<'a>(
    layer: usize,
    shape: LinearShape,
    moments: &Moments<'a>,
) -> Result<LinearView<'a>, Error> {
    let LinearShape { id, rows, cols, .. } = shape;
    Ok(LinearView { layer, id, rows, cols, inputs: moments.of(id)? })
}

/// Bytes of an expert's prunable weights, about.
fn expert_bytes(stages: Stages<'_>, layer: usize, expert: usize) -> usize {
    let linears = stages.prunable(layer).into_iter().filter(|s| s.id.expert() == Some(expert));
    2 * linears.map(|shape| shape.parameters() as usize).sum::<usize>()
}

fn stop_if_asked(watch: Watch<'_>) -> Result<(), Error> {
    count(watch, 0)
}

/// Where no token runs, work is counted in bytes.
fn watch_bytes(bytes: impl IntoIterator<Item = usize>, watch: Watch<'_>) -> Result<(), Error> {
    count(watch, bytes.into_iter().map(|bytes| bytes as u64).sum())
}

fn count(watch: Watch<'_>, more: u64) -> Result<(), Error> {
    match watch(more) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
