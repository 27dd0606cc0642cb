//! One layer: watched, scored, zeroed and written, with one expert in memory at a time.
//!
//! The statistics of every Linear come from the layer's own weights, and the next layer reads what
//! the zeroed ones give (`docs/method.md`). Both are walked side by side: the trunk on all blocks
//! with the weights as they are; the trunk's Linears are zeroed; the trunk again. Then for each
//! expert: read, run on the tokens that the first walk routed to it, zeroed, run on the tokens of
//! the second, written.

use std::{collections::BTreeMap, ops::ControlFlow, sync::atomic::Ordering};

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, LayerRun, Watch};
use moeprune_core::{
    IdleExperts, LayerObservation, LinearId, LinearShape, MlpProjection, RoutedMass, Sparsity,
    TensorBytes,
};

use super::{
    in_place::MaskRequest,
    layer_job::{AFTER_EXPERTS, LayerJob, view},
    statistics::InputStatistics,
    worker::{TrunkPass, Worker},
    writing::Output,
};
use crate::{Error, session::WithoutZero, walk::AtLayer};

/// How one layer is pruned.
#[derive(Clone, Copy)]
pub(super) struct PruneTask<'t> {
    /// Statistics of an observation, for a layer that is not run.
    pub(super) stored: Option<&'t LayerObservation>,
    /// The layer's ratio.
    pub(super) ratio: Sparsity,
}

/// Zeroes weights of a layer, writes all of it, and replaces its inputs by its outputs.
pub(super) fn prune_layer<'a, W: Worker<'a>>(
    worker: &W,
    layer_job: LayerJob<'_>,
    at: &mut AtLayer<'_>,
    output: &mut Output<'_>,
    task: PruneTask<'_>,
) -> Result<PrunedLayer, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let layer = *layer;
    let mut work = Pruning::new(worker, layer_job, layer, task)?;
    if hidden.is_some()
        && let Some(router) = layer_job.router_with_other_mass(layer)?
    {
        work.observer.compare_mass(router);
    }
    let linears = work.trunk(hidden, watch)?;
    let bytes = || linears.values().map(|linear| linear.bytes().len());
    let written = bytes().sum::<usize>() as u64;
    worker.write(written, &mut || output.put_trunk(layer, &linears))?;
    if work.dense.is_none() {
        watch_bytes(bytes(), watch)?;
    }
    drop(linears);
    output.write_behind(worker, layer, |write| {
        worker.for_each_expert(layer, &layer_job.experts(layer), &mut |e, mut expert| {
            work.expert(e, &mut expert, watch)?;
            for (projection, weight) in worker.finish_expert(expert)? {
                write(LinearId::Expert(e, projection), weight)?;
            }
            Ok(())
        })
    })?;
    let last = work.after_experts(watch)?;
    let written = last.values().map(|linear| linear.bytes().len()).sum::<usize>() as u64;
    if written > 0 {
        worker.write(written, &mut || output.put_linears(layer, &last))?;
    }
    **hidden = work.pruned.map(LayerRun::finish).transpose()?;
    Ok(work.done)
}

/// What reaches a layer's Linears while weights of it are zeroed, as [`prune_layer`] does without writing;
/// replaces the layer's inputs by its outputs.
pub(super) fn observe_layer<'a, W: Worker<'a>>(
    worker: &W,
    layer_job: LayerJob<'_>,
    at: &mut AtLayer<'_>,
    ratio: Sparsity,
) -> Result<LayerObservation, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let layer = *layer;
    let mut work = Pruning::new(worker, layer_job, layer, PruneTask { stored: None, ratio })?;
    work.trunk(hidden, watch)?;
    worker.for_each_expert(layer, &layer_job.experts(layer), &mut |e, mut expert| {
        work.expert(e, &mut expert, watch)
    })?;
    work.after_experts(watch)?;
    **hidden = work.pruned.map(LayerRun::finish).transpose()?;
    Ok(work.observer.finish()?)
}

/// A layer on its way from its weights as they are to the zeroed ones.
struct Pruning<'p, W> {
    worker: &'p W,
    layer_job: LayerJob<'p>,
    layer: usize,
    task: PruneTask<'p>,
    /// Statistics of the run.
    observer: LayerObserver,
    /// The layer as it was; `None` if nothing is run.
    dense: Option<LayerRun>,
    /// The layer with weights zeroed; `None` until its trunk is, and if nothing is run.
    pruned: Option<LayerRun>,
    done: PrunedLayer,
}

impl<'p, 'a, W: Worker<'a>> Pruning<'p, W> {
    fn new(
        worker: &'p W,
        layer_job: LayerJob<'p>,
        layer: usize,
        task: PruneTask<'p>,
    ) -> Result<Self, Error> {
        let hessians = layer_job.pipeline.weights.needs().hessians;
        let observer = layer_job.observer(layer, hessians)?;
        let done = PrunedLayer::default();
        Ok(Self { worker, layer_job, layer, task, observer, dense: None, pruned: None, done })
    }

    /// Runs the trunk, zeroes weights of it, and runs it again. Returns the Linears that were zeroed.
    fn trunk(
        &mut self,
        hidden: &mut Option<Vec<Tensor>>,
        watch: Watch<'_>,
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        let Self { worker, layer_job, layer, .. } = *self;
        let mut trunk = worker.load_trunk(layer)?;
        if let Some(hidden) = hidden.as_deref() {
            let pass = TrunkPass::Watch(hidden, &mut self.observer);
            self.dense = Some(worker.run_trunk(layer, &trunk, pass, watch)?);
            self.done.mass = self.observer.routed_mass();
        }
        let mut masked = layer_job.prunable(layer);
        masked.retain(|shape| shape.id.expert().is_none() && shape.id != AFTER_EXPERTS);
        for &shape in &masked {
            self.mask_linear(&mut trunk, shape)?;
            stop_if_asked(watch)?;
        }
        self.observer.forget_hessians(None);
        if let Some(hidden) = hidden.take() {
            let pass = TrunkPass::Advance(hidden, None);
            self.pruned = Some(worker.run_trunk(layer, &trunk, pass, watch)?);
        }
        worker.finish_trunk(trunk, &masked)
    }

    /// Zeroes weights of a Linear of the trunk.
    fn mask_linear(&mut self, trunk: &mut W::Trunk, shape: LinearShape) -> Result<(), Error> {
        let Self { worker, layer_job, layer, task, .. } = *self;
        let hessian = self.observer.hessian_of(shape.id)?;
        let moments = InputStatistics::of_layer(&self.dense, &self.observer, task.stored);
        let linear = view(layer, shape, &moments)?;
        let masking = layer_job.masking(linear, hessian, task.ratio);
        self.done.count(&masking);
        worker.mask_trunk(trunk, &masking)?;
        self.done.note_zeros(&masking);
        Ok(())
    }

    /// Zeroes weights of the Linear that reads what all experts add up to, and has the layer end with it.
    /// Returns it; nothing of a layer without such.
    fn after_experts(
        &mut self,
        watch: Watch<'_>,
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        let Self { worker, layer_job, layer, .. } = *self;
        let Some(shape) = layer_job.shape_of(layer, AFTER_EXPERTS) else {
            return Ok(BTreeMap::new());
        };
        if let Some(dense) = &self.dense {
            dense.show_sums(&mut self.observer)?;
        }
        let mut trunk = worker.load_trunk(layer)?;
        self.mask_linear(&mut trunk, shape)?;
        self.observer.forget_hessians(None);
        if let Some(pruned) = &mut self.pruned {
            pruned.take_over(&*worker.ready_trunk(&trunk)?);
        }
        stop_if_asked(watch)?;
        worker.finish_trunk(trunk, &[shape])
    }

    /// Runs an expert on its tokens, zeroes weights of it, and runs it again.
    fn expert(&mut self, e: usize, expert: &mut W::Expert, watch: Watch<'_>) -> Result<(), Error> {
        let Self { worker, layer_job, layer, .. } = *self;
        stop_if_asked(watch)?;
        if let Some(dense) = &mut self.dense
            && dense.tokens(e) > 0
        {
            worker.run_expert(expert, dense, Some(&mut self.observer), watch)?;
        }
        self.mask_expert(e, expert)?;
        self.observer.forget_hessians(Some(e));
        match &mut self.pruned {
            Some(pruned) if pruned.tokens(e) > 0 => worker.run_expert(expert, pruned, None, watch),
            Some(_) => Ok(()),
            None => watch_bytes([layer_job.expert_bytes(layer, e)], watch),
        }
    }

    fn mask_expert(&mut self, e: usize, expert: &mut W::Expert) -> Result<(), Error> {
        let Self { worker, layer_job, layer, task, .. } = *self;
        let moments = InputStatistics::of_layer(&self.dense, &self.observer, task.stored);
        let reached = moments.reached(layer_job.expert_input(layer, e))?;
        if !reached {
            self.done.idle.push(e);
        }
        if !reached && layer_job.promises.idle_experts == IdleExperts::Dense {
            return Ok(());
        }
        for projection in MlpProjection::ALL {
            let id = LinearId::Expert(e, projection);
            let Some(shape) = layer_job.shape_of(layer, id) else { continue };
            let hessian = self.observer.hessian_of(id)?;
            let linear = view(layer, shape, &moments)?;
            let masking =
                layer_job.masking(linear, hessian, layer_job.ratio_of(layer, id, task.ratio));
            self.done.count(&masking);
            worker.mask_expert(expert, projection, &masking)?;
            self.done.note_zeros(&masking);
        }
        Ok(())
    }
}

/// What there is to say about a layer that was pruned.
#[derive(Debug, Default)]
pub(super) struct PrunedLayer {
    /// Experts that no calibration token reached.
    pub(super) idle: Vec<usize>,
    /// Linears that too few tokens reached to make up for the weights that go: they were scored.
    pub(super) scored: u64,
    /// Weights that have no code that is zero and stay, if there are such.
    pub(super) without_zero: Option<WithoutZero>,
    /// Weights without the router's that were zero before, of Linears that were worked on and counted.
    pub(super) zero_before: Option<u64>,
    /// What the layer's experts weigh together, where that changes with the experts.
    pub(super) mass: Option<RoutedMass>,
}

impl PrunedLayer {
    fn count(&mut self, masking: &MaskRequest<'_>) {
        self.scored += u64::from(masking.falls_back());
    }

    /// Counts weights that were zero before, and those that could not become zero, after the Linear was worked on.
    fn note_zeros(&mut self, masking: &MaskRequest<'_>) {
        if let Some(before) = masking.zero_before.get()
            && masking.linear.id != LinearId::Router
        {
            *self.zero_before.get_or_insert(0) += before;
        }
        let weights = masking.without_zero.load(Ordering::Relaxed);
        if weights > 0 {
            let first = masking.linear.id;
            let all =
                self.without_zero.get_or_insert(WithoutZero { weights: 0, linears: 0, first });
            (all.weights, all.linears) = (all.weights + weights, all.linears + 1);
        }
    }
}

pub(super) fn stop_if_asked(watch: Watch<'_>) -> Result<(), Error> {
    count(watch, 0)
}

/// Where no token runs, work is counted in bytes.
pub(super) fn watch_bytes(
    bytes: impl IntoIterator<Item = usize>,
    watch: Watch<'_>,
) -> Result<(), Error> {
    count(watch, bytes.into_iter().map(|bytes| bytes as u64).sum())
}

fn count(watch: Watch<'_>, more: u64) -> Result<(), Error> {
    match watch(more) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
