//! One layer: watched, scored, zeroed and written, with one expert in memory at a time.
//!
//! The statistics of every Linear come from the layer's own weights, and the next layer reads what
//! the zeroed ones give (`docs/method.md`). Both are walked side by side: the trunk on all blocks
//! with the weights as they are; the trunk's Linears are zeroed; the trunk again. Then for each
//! expert: read, run on the tokens that the first walk routed to it, zeroed, run on the tokens of
//! the second, written.

use std::{collections::BTreeMap, ops::ControlFlow};

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, LayerRun, Watch};
use moeprune_core::{
    IdleExperts, LayerObservation, LinearId, MlpProjection, Sparsity, TensorBytes,
};

use super::{
    held::{HeldExpert, HeldTrunk, for_each_expert},
    in_place::Masking,
    stages::{Stages, view},
    statistics::Moments,
    writing::Output,
};
use crate::{Error, walk::AtLayer};

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
    let observer = stages.observer(layer, stages.pipeline.weights.needs().hessians)?;
    let done = PrunedLayer::default();
    let (dense, pruned) = (None, None);
    let mut work = Pruning { stages, layer, stored, ratio, observer, dense, pruned, done };
    let linears = work.trunk(hidden, watch)?;
    output.put_trunk(kept, layer, &linears)?;
    if work.dense.is_none() {
        watch_bytes(linears.values().map(|linear| linear.bytes().len()), watch)?;
    }
    drop(linears);
    output.write_behind(kept, stages.execution.compute(), layer, |write| {
        for_each_expert(stages, layer, |mut expert| {
            work.expert(&mut expert, watch)?;
            let e = expert.index();
            for (projection, weight) in expert.into_finished()? {
                write(LinearId::Expert(e, projection), weight)?;
            }
            Ok(())
        })
    })?;
    **hidden = work.pruned.map(LayerRun::finish).transpose()?;
    Ok(work.done)
}

/// A layer on its way from its weights as they are to the zeroed ones.
struct Pruning<'a> {
    stages: Stages<'a>,
    layer: usize,
    /// Statistics of an observation, for a layer that is not run.
    stored: Option<&'a LayerObservation>,
    /// The layer's ratio.
    ratio: Sparsity,
    /// Statistics of the run.
    observer: LayerObserver,
    /// The layer as it was; `None` if nothing is run.
    dense: Option<LayerRun>,
    /// The layer with weights zeroed; `None` until its trunk is, and if nothing is run.
    pruned: Option<LayerRun>,
    done: PrunedLayer,
}

impl Pruning<'_> {
    /// Runs the trunk, zeroes weights of it, and runs it again. Returns the Linears that were zeroed.
    fn trunk(
        &mut self,
        hidden: &mut Option<Vec<Tensor>>,
        watch: Watch<'_>,
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        let (stages, layer) = (self.stages, self.layer);
        let mut trunk = HeldTrunk::load(stages, layer)?;
        if let Some(hidden) = hidden.as_deref() {
            let observer = &mut self.observer;
            self.dense = Some(trunk.run(stages, layer, |trunk| {
                Ok(LayerRun::watch_only(trunk, layer, hidden, observer, watch)?)
            })?);
        }
        let mut masked = stages.prunable(layer);
        masked.retain(|shape| shape.id.expert().is_none());
        for &shape in &masked {
            let hessian = self.observer.hessian_of(shape.id)?;
            let moments = Moments::of_layer(&self.dense, &self.observer, self.stored);
            let linear = view(layer, shape, &moments)?;
            let masking = stages.masking(linear, hessian, self.ratio);
            self.done.count(&masking);
            trunk.mask(layer, shape, &masking)?;
            stop_if_asked(watch)?;
        }
        self.observer.forget_hessians(None);
        if let Some(hidden) = hidden.take() {
            self.pruned = Some(trunk.run(stages, layer, |trunk| {
                Ok(LayerRun::advance(trunk, layer, hidden, None, watch)?)
            })?);
        }
        trunk.into_masked(stages, &masked)
    }

    /// Runs an expert on its tokens, zeroes weights of it, and runs it again.
    fn expert(&mut self, expert: &mut HeldExpert<'_>, watch: Watch<'_>) -> Result<(), Error> {
        let (stages, layer, e) = (self.stages, self.layer, expert.index());
        stop_if_asked(watch)?;
        if let Some(dense) = &mut self.dense
            && dense.tokens(e) > 0
        {
            let observer = &mut self.observer;
            expert.run(stages, layer, |expert| {
                Ok(dense.expert(e, expert, Some(observer), watch)?)
            })?;
        }
        self.mask_expert(expert)?;
        self.observer.forget_hessians(Some(e));
        match &mut self.pruned {
            Some(pruned) if pruned.tokens(e) > 0 => {
                expert.run(stages, layer, |expert| Ok(pruned.expert(e, expert, None, watch)?))
            }
            Some(_) => Ok(()),
            None => watch_bytes([stages.expert_bytes(layer, e)], watch),
        }
    }

    fn mask_expert(&mut self, expert: &mut HeldExpert<'_>) -> Result<(), Error> {
        let (stages, layer, e) = (self.stages, self.layer, expert.index());
        let moments = Moments::of_layer(&self.dense, &self.observer, self.stored);
        let reached = moments.reached(e)?;
        if !reached {
            self.done.idle.push(e);
        }
        if !reached && stages.promises.idle_experts == IdleExperts::Dense {
            return Ok(());
        }
        for projection in MlpProjection::ALL {
            let id = LinearId::Expert(e, projection);
            let Some(shape) = stages.shape_of(layer, id) else { continue };
            let hessian = self.observer.hessian_of(id)?;
            let linear = view(layer, shape, &moments)?;
            let masking = stages.masking(linear, hessian, stages.ratio_of(layer, id, self.ratio));
            self.done.count(&masking);
            expert.mask(projection, &masking)?;
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
}

impl PrunedLayer {
    fn count(&mut self, masking: &Masking<'_>) {
        self.scored += u64::from(masking.falls_back());
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
