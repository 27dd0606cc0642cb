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
    held::{HeldExpert, HeldTrunk, HeldWeight, for_each_expert},
    layer::{stop_if_asked, watch_bytes},
    stages::{Stages, view},
    statistics::Moments,
};
use crate::{Error, walk::AtLayer};

/// The percentage of a layer's scores above `multiplier` times their mean; replaces the layer's
/// inputs by its outputs. Linears that no token reached do not count.
pub(super) fn measure_layer(
    stages: Stages<'_>,
    at: &mut AtLayer<'_>,
    stored: Option<&LayerObservation>,
    multiplier: f64,
) -> Result<f64, Error> {
    let AtLayer { layer, hidden, watch, .. } = at;
    let layer = *layer;
    let (trunk, experts) =
        stages.prunable(layer).into_iter().partition(|shape| shape.id.expert().is_none());
    let observer = stages.observer(layer, false)?;
    let run = None;
    let mut work = Measuring { stages, layer, stored, trunk, experts, observer, run };
    // Where a device has room for them, experts stay between the two times they are gone through.
    let mut held_experts = stages.execution.holds_layer().then(Vec::new);
    let held = HeldTrunk::load(stages, layer)?;
    let mut sums = BTreeMap::new();
    work.add_trunk(&held, hidden.take(), &mut sums, watch)?;
    for_each_expert(stages, layer, |expert| {
        work.add_expert(&expert, &mut sums, watch)?;
        if let Some(held) = &mut held_experts {
            held.push(expert);
        }
        Ok(())
    })?;
    let mut sum = ScoreSum::default();
    for shape in &stages.prunable(layer) {
        sum += sums.get(&shape.id).copied().unwrap_or_default();
    }
    let mut above = 0;
    if let Some(threshold) = sum.threshold(multiplier) {
        above += work.trunk_above(&held, threshold)?;
        let mut count = |expert: HeldExpert<'_>| {
            stop_if_asked(watch)?;
            above += work.expert_above(&expert, threshold)?;
            Ok(())
        };
        match held_experts {
            Some(held) => held.into_iter().try_for_each(&mut count)?,
            None => for_each_expert(stages, layer, &mut count)?,
        }
    }
    **hidden = work.run.map(LayerRun::finish).transpose()?;
    Ok(sum.percent(above).unwrap_or(0.0))
}

/// A layer that is measured.
struct Measuring<'a> {
    stages: Stages<'a>,
    layer: usize,
    /// Statistics of an observation, for a layer that is not run.
    stored: Option<&'a LayerObservation>,
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

impl Measuring<'_> {
    /// Runs the trunk and adds up its scores.
    fn add_trunk(
        &mut self,
        held: &HeldTrunk<'_>,
        hidden: Option<Vec<Tensor>>,
        sums: &mut Sums,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let (stages, layer) = (self.stages, self.layer);
        if let Some(hidden) = hidden {
            let observer = &mut self.observer;
            self.run = Some(held.run(stages, layer, |trunk| {
                Ok(LayerRun::advance(trunk, layer, hidden, Some(observer), watch)?)
            })?);
        }
        for &shape in &self.trunk {
            sums.insert(shape.id, self.score_sum(shape, &held.weight(layer, shape)?)?);
            stop_if_asked(watch)?;
        }
        Ok(())
    }

    /// Runs an expert on its tokens and adds up its scores.
    fn add_expert(
        &mut self,
        expert: &HeldExpert<'_>,
        sums: &mut Sums,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let (stages, layer, e) = (self.stages, self.layer, expert.index());
        stop_if_asked(watch)?;
        if let Some(run) = &mut self.run
            && run.tokens(e) > 0
        {
            let observer = &mut self.observer;
            expert
                .run(stages, layer, |expert| Ok(run.expert(e, expert, Some(observer), watch)?))?;
        }
        for shape in self.of_expert(e) {
            let LinearId::Expert(_, projection) = shape.id else { continue };
            sums.insert(shape.id, self.score_sum(shape, &expert.weight(projection)?)?);
        }
        if self.run.is_none() {
            watch_bytes([stages.expert_bytes(layer, e)], watch)?;
        }
        Ok(())
    }

    fn trunk_above(&self, held: &HeldTrunk<'_>, threshold: f64) -> Result<u64, Error> {
        let counts = self
            .trunk
            .iter()
            .map(|&shape| self.count_above(shape, &held.weight(self.layer, shape)?, threshold));
        counts.sum()
    }

    fn expert_above(&self, expert: &HeldExpert<'_>, threshold: f64) -> Result<u64, Error> {
        let mut above = 0;
        for shape in self.of_expert(expert.index()) {
            let LinearId::Expert(_, projection) = shape.id else { continue };
            above += self.count_above(shape, &expert.weight(projection)?, threshold)?;
        }
        Ok(above)
    }

    fn of_expert(&self, expert: usize) -> impl Iterator<Item = LinearShape> + '_ {
        self.experts.iter().copied().filter(move |shape| shape.id.expert() == Some(expert))
    }

    fn moments(&self) -> Moments<'_> {
        Moments::of_layer(&self.run, &self.observer, self.stored)
    }

    fn score_sum(&self, shape: LinearShape, weight: &HeldWeight<'_>) -> Result<ScoreSum, Error> {
        weight.score_sum(&view(self.layer, shape, &self.moments())?, self.stages)
    }

    fn count_above(
        &self,
        shape: LinearShape,
        weight: &HeldWeight<'_>,
        threshold: f64,
    ) -> Result<u64, Error> {
        weight.count_above(&view(self.layer, shape, &self.moments())?, threshold, self.stages)
    }
}
