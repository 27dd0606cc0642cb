//! What works on a layer: on stored bytes with the CPU, or on tensors of a device.
//!
//! The loops over a layer ([`prune_layer`](super::layer), [`measure_layer`](super::measure)) are
//! written once, for any [`Worker`]. [`HostWorker`] holds a part as it is stored; to be run it is
//! loaded, which widens it, and masks make new bytes of the stored ones: so do those of weights in
//! codes, wherever they run. [`DeviceWorker`] loads a
//! part once, as it is stored: it runs from there, is masked in place, and goes back. A worker of
//! another kind of device is one more file here and a line in [`work`](super::work).

mod device;
mod host;

pub(super) use device::DeviceWorker;
pub(super) use host::HostWorker;

use std::{collections::BTreeMap, ops::Deref};

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, LayerRun, Watch};
use moeprune_core::{
    LinearId, LinearShape, LinearView, MlpProjection, ModelSpec, TensorBytes, TensorSource,
};
use moeprune_model::{Expert, LayerTrunk};
use moeprune_score::ScoreSum;

use super::in_place::MaskRequest;
use crate::{Error, Execution, WeightStage};

/// What a worker works with.
#[derive(Clone, Copy)]
pub(super) struct Supply<'a> {
    /// Where weights are read.
    pub(super) source: &'a dyn TensorSource,
    /// The model that they make.
    pub(super) spec: &'a ModelSpec,
    /// How weights are scored.
    pub(super) weights: &'a WeightStage,
    /// Where all that is done.
    pub(super) execution: &'a Execution,
    /// In which form parts are held.
    pub(super) holds: Holds,
}

/// The steps of a layer's work, in the order of the loop: load, run, mask, run, finish, write.
pub(super) trait Worker<'a>: Sync {
    /// A layer without its experts.
    type Trunk;
    /// An expert.
    type Expert;
    /// A Linear's weight.
    type Weight<'w>
    where
        Self: 'w;
    /// A weight that nothing is done to any more.
    type Finished: Send;

    /// In which form parts are held between the steps.
    fn holds(&self) -> Holds;

    /// Whether reading, working, fetching and writing go on at the same time.
    fn overlaps(&self) -> bool {
        true
    }

    /// Brings a layer's trunk into the form that is held.
    fn load_trunk(&self, layer: usize) -> Result<Self::Trunk, Error>;

    /// Brings an expert into the form that is held.
    fn load_expert(&self, layer: usize, expert: usize) -> Result<Self::Expert, Error>;

    /// [Loads](Self::load_expert) experts in the given order, each while the one before it is in
    /// use, and passes index and expert to `visit`.
    fn for_each_expert(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(usize, Self::Expert) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// The trunk as it is now, ready to run.
    fn ready_trunk<'t>(&self, trunk: &'t Self::Trunk) -> Result<Ready<'t, LayerTrunk>, Error>;

    /// The expert as it is now, ready to run.
    fn ready_expert<'e>(&self, expert: &'e Self::Expert) -> Result<Ready<'e, Expert>, Error>;

    /// Runs a trunk on all blocks.
    fn run_trunk(
        &self,
        layer: usize,
        trunk: &Self::Trunk,
        pass: TrunkPass<'_>,
        watch: Watch<'_>,
    ) -> Result<LayerRun, Error> {
        pass.run(layer, &*self.ready_trunk(trunk)?, watch)
    }

    /// Runs an expert on the tokens that a trunk's run routed to it.
    fn run_expert(
        &self,
        expert: &Self::Expert,
        run: &mut LayerRun,
        observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let expert = self.ready_expert(expert)?;
        Ok(run.expert(expert.index(), &expert, observer, watch)?)
    }

    /// Zeroes weights of the Linear of a trunk that `masking` names.
    fn mask_trunk(&self, trunk: &mut Self::Trunk, masking: &MaskRequest<'_>) -> Result<(), Error>;

    /// Zeroes weights of one matrix of an expert.
    fn mask_expert(
        &self,
        expert: &mut Self::Expert,
        projection: MlpProjection,
        masking: &MaskRequest<'_>,
    ) -> Result<(), Error>;

    /// A weight of a trunk.
    fn trunk_weight<'w>(
        &self,
        trunk: &'w Self::Trunk,
        linear: LinearId,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w;

    /// A weight of an expert.
    fn expert_weight<'w>(
        &self,
        expert: &'w Self::Expert,
        projection: MlpProjection,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w;

    /// Adds up a weight's scores.
    fn score_sum<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
    ) -> Result<ScoreSum, Error>
    where
        Self: 'w;

    /// Counts a weight's scores above a threshold.
    fn count_above<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
        threshold: f64,
    ) -> Result<u64, Error>
    where
        Self: 'w;

    /// The Linears of a trunk that were masked, which are `masked`, as they are written.
    fn finish_trunk(
        &self,
        trunk: Self::Trunk,
        masked: &[LinearShape],
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error>;

    /// An expert's weights, to be written.
    fn finish_expert(
        &self,
        expert: Self::Expert,
    ) -> Result<Vec<(MlpProjection, Self::Finished)>, Error>;

    /// The bytes of a weight that is to be written; waits for the device.
    fn fetch(&self, finished: Self::Finished) -> Result<TensorBytes<'a>, Error>;

    /// Writes bytes by `put`.
    fn write(&self, bytes: u64, put: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let _ = bytes;
        put()
    }
}

/// In which form a worker holds a part between the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// As it is stored: it is loaded whenever it runs, and is written as it is.
    Stored,
    /// Where it runs: it is loaded once, and fetched to be written.
    Loaded,
}

/// A part that can be run.
pub(super) enum Ready<'p, T> {
    /// Loaded for one run.
    Loaded(Box<T>),
    /// Held where it runs.
    Held(&'p T),
}

impl<T> Deref for Ready<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Loaded(part) => part,
            Self::Held(part) => part,
        }
    }
}

/// What a trunk is run for, with the layer's inputs: one tensor `[blocks, tokens, hidden]` for each
/// micro-batch.
pub(super) enum TrunkPass<'p> {
    /// For statistics alone: outputs are not kept.
    Watch(&'p [Tensor], &'p mut LayerObserver),
    /// For its outputs, which replace the inputs.
    Advance(Vec<Tensor>, Option<&'p mut LayerObserver>),
}

impl TrunkPass<'_> {
    pub(super) fn run(
        self,
        layer: usize,
        trunk: &LayerTrunk,
        watch: Watch<'_>,
    ) -> Result<LayerRun, Error> {
        Ok(match self {
            Self::Watch(hidden, observer) => {
                LayerRun::watch_only(trunk, layer, hidden, observer, watch)?
            }
            Self::Advance(hidden, observer) => {
                LayerRun::advance(trunk, layer, hidden, observer, watch)?
            }
        })
    }

    /// Tokens of the blocks.
    pub(super) fn tokens(&self) -> Result<u64, Error> {
        let hidden = match self {
            Self::Watch(hidden, _) => *hidden,
            Self::Advance(hidden, _) => hidden.as_slice(),
        };
        let mut tokens = 0;
        for batch in hidden {
            let (blocks, len, _) = batch.dims3()?;
            tokens += (blocks * len) as u64;
        }
        Ok(tokens)
    }

    /// Whether statistics are taken on the way.
    pub(super) fn is_watched(&self) -> bool {
        matches!(self, Self::Watch(..) | Self::Advance(_, Some(_)))
    }
}
