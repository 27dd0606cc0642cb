//! How far a layer's scores spread (OWL), weights as they are.
//!
//! No score is held: the layer's weights are gone through once for the mean and once more for the
//! count.

use std::collections::BTreeMap;

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, LayerRun, Watch};
use moeprune_core::{LayerObservation, LinearId, LinearShape};
use moeprune_score::ScoreSum;

use super::{
    layer::{stop_if_asked, watch_bytes},
    layer_job::{AFTER_EXPERTS, LayerJob, view},
    statistics::InputStatistics,
    worker::{TrunkPass, Worker},
};
use crate::{Error, walk::AtLayer};

/// The percentage of a layer's scores above `multiplier` times their mean; replaces the layer's
/// inputs by its outputs. Linears that no token reached do not count.
pub(super) fn measure_layer<'a, W: Worker<'a>>(
    worker: &W,
    layer_job: LayerJob<'_>,
    at: &mut AtLayer<'_>,
    stored: Option<&LayerObservation>,
    multiplier: f64,
) -> Result<f64, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let layer = *layer;
    let (trunk, experts) =
        layer_job.prunable(layer).into_iter().partition(|shape| shape.id.expert().is_none());
    let observer = layer_job.observer(layer, false)?;
    let run = None;
    let mut work = Measuring { worker, layer_job, layer, stored, trunk, experts, observer, run };
    // Where a device has room for them, experts stay between the two times they are gone through.
    let mut held_experts = layer_job.execution.holds_layer().then(Vec::new);
    let held = worker.load_trunk(layer)?;
    let mut sums = BTreeMap::new();
    work.add_trunk(&held, hidden.take(), &mut sums, watch)?;
    let all_experts = layer_job.experts(layer);
    worker.for_each_expert(layer, &all_experts, &mut |e, expert| {
        work.add_expert(e, &expert, &mut sums, watch)?;
        if let Some(held) = &mut held_experts {
            held.push((e, expert));
        }
        Ok(())
    })?;
    work.add_after_experts(&held, &mut sums)?;
    let mut sum = ScoreSum::default();
    for shape in &layer_job.prunable(layer) {
        sum += sums.get(&shape.id).copied().unwrap_or_default();
    }
    let mut above = 0;
    if let Some(threshold) = sum.threshold(multiplier) {
        above += work.trunk_above(&held, threshold)?;
        let mut count = |e, expert| {
            stop_if_asked(watch)?;
            above += work.expert_above(e, &expert, threshold)?;
            Ok(())
        };
        match held_experts {
            Some(held) => held.into_iter().try_for_each(|(e, expert)| count(e, expert))?,
            None => worker.for_each_expert(layer, &all_experts, &mut count)?,
        }
    }
    **hidden = work.run.map(LayerRun::finish).transpose()?;
    Ok(sum.percent(above).unwrap_or(0.0))
}

/// A layer that is measured.
struct Measuring<'m, W> {
    worker: &'m W,
    layer_job: LayerJob<'m>,
    layer: usize,
    /// Statistics of an observation, for a layer that is not run.
    stored: Option<&'m LayerObservation>,
    /// Linears of the trunk.
    trunk: Vec<LinearShape>,
    /// Linears of the experts.
    experts: Vec<LinearShape>,
    /// Statistics of the run.
    observer: LayerObserver,
    /// `None` if nothing is run.
    run: Option<LayerRun>,
}

/// The sum of the scores of each Linear.
type Sums = BTreeMap<LinearId, ScoreSum>;

impl<'a, W: Worker<'a>> Measuring<'_, W> {
    /// Runs the trunk and adds up its scores.
    fn add_trunk(
        &mut self,
        held: &W::Trunk,
        hidden: Option<Vec<Tensor>>,
        sums: &mut Sums,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let Self { worker, layer, .. } = *self;
        if let Some(hidden) = hidden {
            let pass = TrunkPass::Advance(hidden, Some(&mut self.observer));
            self.run = Some(worker.run_trunk(layer, held, pass, watch)?);
        }
        for &shape in self.trunk.iter().filter(|shape| shape.id != AFTER_EXPERTS) {
            sums.insert(shape.id, self.score_sum(shape, &worker.trunk_weight(held, shape.id)?)?);
            stop_if_asked(watch)?;
        }
        Ok(())
    }

    /// Adds up the scores of the Linear that reads what all experts add up to, if there is one.
    fn add_after_experts(&mut self, held: &W::Trunk, sums: &mut Sums) -> Result<(), Error> {
        if let Some(run) = &self.run {
            run.show_sums(&mut self.observer)?;
        }
        for &shape in self.trunk.iter().filter(|shape| shape.id == AFTER_EXPERTS) {
            let weight = self.worker.trunk_weight(held, shape.id)?;
            sums.insert(shape.id, self.score_sum(shape, &weight)?);
        }
        Ok(())
    }

    /// Runs an expert on its tokens and adds up its scores.
    fn add_expert(
        &mut self,
        e: usize,
        expert: &W::Expert,
        sums: &mut Sums,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let Self { worker, layer_job, layer, .. } = *self;
        stop_if_asked(watch)?;
        if let Some(run) = &mut self.run
            && run.tokens(e) > 0
        {
            worker.run_expert(expert, run, Some(&mut self.observer), watch)?;
        }
        for shape in self.of_expert(e) {
            let LinearId::Expert(_, projection) = shape.id else { continue };
            let weight = worker.expert_weight(expert, projection)?;
            sums.insert(shape.id, self.score_sum(shape, &weight)?);
        }
        if self.run.is_none() {
            watch_bytes([layer_job.expert_bytes(layer, e)], watch)?;
        }
        Ok(())
    }

    fn trunk_above(&self, held: &W::Trunk, threshold: f64) -> Result<u64, Error> {
        let counts = self.trunk.iter().map(|&shape| {
            self.count_above(shape, &self.worker.trunk_weight(held, shape.id)?, threshold)
        });
        counts.sum()
    }

    fn expert_above(&self, e: usize, expert: &W::Expert, threshold: f64) -> Result<u64, Error> {
        let mut above = 0;
        for shape in self.of_expert(e) {
            let LinearId::Expert(_, projection) = shape.id else { continue };
            let weight = self.worker.expert_weight(expert, projection)?;
            above += self.count_above(shape, &weight, threshold)?;
        }
        Ok(above)
    }

    fn of_expert(&self, expert: usize) -> impl Iterator<Item = LinearShape> + '_ {
        self.experts.iter().copied().filter(move |shape| shape.id.expert() == Some(expert))
    }

    fn moments(&self) -> InputStatistics<'_> {
        InputStatistics::of_layer(&self.run, &self.observer, self.stored)
    }

    fn score_sum(&self, shape: LinearShape, weight: &W::Weight<'_>) -> Result<ScoreSum, Error> {
        self.worker.score_sum(weight, &view(self.layer, shape, &self.moments())?)
    }

    fn count_above(
        &self,
        shape: LinearShape,
        weight: &W::Weight<'_>,
        threshold: f64,
    ) -> Result<u64, Error> {
        self.worker.count_above(weight, &view(self.layer, shape, &self.moments())?, threshold)
    }
}
