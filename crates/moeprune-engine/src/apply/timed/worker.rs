//! A worker that records what each step takes.

use std::collections::BTreeMap;

use moeprune_capture::{LayerObserver, LayerRun, Watch};
use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, MlpProjection, Part, TensorBytes, TensorId,
};
use moeprune_model::{Expert, LayerTrunk};
use moeprune_score::ScoreSum;

use super::meter::Meter;
use crate::{
    Error, Model,
    apply::{
        in_place::MaskRequest,
        worker::{Holds, Ready, TrunkPass, Worker},
    },
};

/// A worker, one step after the other, each timed. What it reads is timed by its
/// [source](super::meter::TimedSource).
pub(super) struct Timed<'a, W> {
    pub(super) worker: W,
    pub(super) meter: &'a Meter<'a>,
    pub(super) sizes: &'a Sizes,
}

impl<W> Timed<'_, W> {
    /// Loading at one of two times: when a part is held, or whenever it runs.
    fn time_load<R>(
        &self,
        here: bool,
        expert: Option<usize>,
        load: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        let bytes = if here { self.sizes.bytes(expert) } else { 0 };
        self.meter.time(|times| &mut times.load, bytes, load)
    }
}

impl<'a, W: Worker<'a>> Worker<'a> for Timed<'a, W> {
    type Trunk = W::Trunk;
    type Expert = (usize, W::Expert);
    type Weight<'w>
        = W::Weight<'w>
    where
        Self: 'w;
    type Finished = W::Finished;

    fn holds(&self) -> Holds {
        self.worker.holds()
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn load_trunk(&self, layer: usize) -> Result<Self::Trunk, Error> {
        let here = self.holds() == Holds::Loaded;
        self.time_load(here, None, || self.worker.load_trunk(layer))
    }

    fn load_expert(&self, layer: usize, expert: usize) -> Result<Self::Expert, Error> {
        let here = self.holds() == Holds::Loaded;
        let loaded =
            self.time_load(here, Some(expert), || self.worker.load_expert(layer, expert))?;
        Ok((expert, loaded))
    }

    fn for_each_expert(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(usize, Self::Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        experts.iter().try_for_each(|&expert| visit(expert, self.load_expert(layer, expert)?))
    }

    fn ready_trunk<'t>(&self, trunk: &'t Self::Trunk) -> Result<Ready<'t, LayerTrunk>, Error> {
        let here = self.holds() == Holds::Stored;
        self.time_load(here, None, || self.worker.ready_trunk(trunk))
    }

    fn ready_expert<'e>(&self, expert: &'e Self::Expert) -> Result<Ready<'e, Expert>, Error> {
        let (index, expert) = expert;
        let here = self.holds() == Holds::Stored;
        self.time_load(here, Some(*index), || self.worker.ready_expert(expert))
    }

    fn run_trunk(
        &self,
        layer: usize,
        trunk: &Self::Trunk,
        pass: TrunkPass<'_>,
        watch: Watch<'_>,
    ) -> Result<LayerRun, Error> {
        let (trunk, watched) = (self.ready_trunk(trunk)?, pass.is_watched());
        let flop = pass.tokens()? * self.sizes.flop(None);
        self.meter.time(
            |times| if watched { &mut times.watched } else { &mut times.trunk },
            flop,
            || pass.run(layer, &trunk, watch),
        )
    }

    fn run_expert(
        &self,
        expert: &Self::Expert,
        run: &mut LayerRun,
        observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let (index, watched) = (expert.0, observer.is_some());
        let (expert, tokens) = (self.ready_expert(expert)?, run.tokens(index));
        if !watched {
            self.meter.note(|times| {
                times.expert_tokens.resize(self.sizes.experts(), 0);
                times.expert_tokens[index] = tokens;
            });
        }
        self.meter.time(
            |times| if watched { &mut times.watched } else { &mut times.experts },
            tokens * self.sizes.flop(Some(index)),
            || Ok(run.expert(index, &expert, observer, watch)?),
        )
    }

    fn mask_trunk(&self, trunk: &mut Self::Trunk, masking: &MaskRequest<'_>) -> Result<(), Error> {
        let bytes = self.sizes.of_linear(masking.linear.id);
        self.meter.time(|times| &mut times.mask, bytes, || self.worker.mask_trunk(trunk, masking))
    }

    fn mask_expert(
        &self,
        expert: &mut Self::Expert,
        projection: MlpProjection,
        masking: &MaskRequest<'_>,
    ) -> Result<(), Error> {
        let bytes = self.sizes.of_linear(masking.linear.id);
        self.meter.time(
            |times| &mut times.mask,
            bytes,
            || self.worker.mask_expert(&mut expert.1, projection, masking),
        )
    }

    fn trunk_weight<'w>(
        &self,
        trunk: &'w Self::Trunk,
        linear: LinearId,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        self.worker.trunk_weight(trunk, linear)
    }

    fn expert_weight<'w>(
        &self,
        expert: &'w Self::Expert,
        projection: MlpProjection,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        self.worker.expert_weight(&expert.1, projection)
    }

    fn score_sum<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
    ) -> Result<ScoreSum, Error>
    where
        Self: 'w,
    {
        self.worker.score_sum(weight, linear)
    }

    fn count_above<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
        threshold: f64,
    ) -> Result<u64, Error>
    where
        Self: 'w,
    {
        self.worker.count_above(weight, linear, threshold)
    }

    fn finish_trunk(
        &self,
        trunk: Self::Trunk,
        masked: &[LinearShape],
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        if self.holds() == Holds::Stored {
            return self.worker.finish_trunk(trunk, masked);
        }
        let bytes = masked.iter().map(|shape| self.sizes.of_linear(shape.id)).sum();
        self.meter.time(|times| &mut times.fetch, bytes, || self.worker.finish_trunk(trunk, masked))
    }

    fn finish_expert(
        &self,
        expert: Self::Expert,
    ) -> Result<Vec<(MlpProjection, Self::Finished)>, Error> {
        self.worker.finish_expert(expert.1)
    }

    fn fetch(&self, finished: Self::Finished) -> Result<TensorBytes<'a>, Error> {
        if self.holds() == Holds::Stored {
            return self.worker.fetch(finished);
        }
        let fetched =
            self.meter.time(|times| &mut times.fetch, 0, || self.worker.fetch(finished))?;
        self.meter.note(|times| times.fetch.work += fetched.bytes().len() as u64);
        Ok(fetched)
    }

    fn write(&self, bytes: u64, put: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        self.meter.time(|times| &mut times.write, bytes, put)
    }
}

/// Bytes and multiplications of a layer's parts.
pub(super) struct Sizes {
    stored: Vec<(TensorId, u64)>,
    linears: Vec<LinearShape>,
    experts: usize,
}

impl Sizes {
    pub(super) fn of(model: &dyn Model, layer: usize) -> Self {
        let spec = model.spec();
        let bytes = |part: Part| (part.id, model.stored_bytes(part.id));
        let stored = spec.layer_parts(layer).into_iter().map(bytes).collect();
        let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts);
        Self { stored, linears: spec.linears(layer), experts }
    }

    fn experts(&self) -> usize {
        self.experts
    }

    /// Stored bytes of an expert, or of the trunk.
    fn bytes(&self, expert: Option<usize>) -> u64 {
        let of = self.stored.iter().filter(|(part, _)| part.expert() == expert);
        of.map(|(_, bytes)| bytes).sum()
    }

    /// Stored bytes of a Linear.
    fn of_linear(&self, linear: LinearId) -> u64 {
        let is_it = |part: &TensorId| matches!(part, TensorId::Layer(_, LayerTensor::Linear(id)) if *id == linear);
        self.stored.iter().filter(|(part, _)| is_it(part)).map(|(_, bytes)| bytes).sum()
    }

    /// FLOP per token in the Linears of an expert, or of the trunk.
    fn flop(&self, expert: Option<usize>) -> u64 {
        let of = self.linears.iter().filter(|linear| linear.id.expert() == expert);
        2 * of.map(LinearShape::parameters).sum::<u64>()
    }
}
