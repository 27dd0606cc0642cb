//! About what the steps of a recipe take on a model, from headers alone.

use moeprune_core::Sparsity;
use moeprune_engine::{
    Estimate, Model, Pipeline, PruneRequest, Rates, RepairCalibration, RepairEstimate,
    RepairTextSize, TextSize, WeightTarget, Work,
};
use moeprune_model::check_runnable;
use serde::Serialize;

use crate::{Error, Recipe};

/// About what observing and pruning a model takes. Everything in it is an estimate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimates {
    /// Calibration blocks.
    pub samples: usize,
    /// Tokens of each.
    pub sequence_len: usize,
    /// How fast the machine is taken to be.
    pub rates: Rates,
    /// Of `observe`; `None` of a model that cannot be run.
    pub observe: Option<Estimate>,
    /// Of `prune`, all of it; `None` of a model that cannot be run, and of a search over subsets of experts,
    /// whose length is not known before.
    pub prune: Option<Estimate>,
    /// What the repair is of that; `None` if nothing is repaired.
    pub repair: Option<RepairEstimate>,
    /// Of `apply`, if whole experts go and no weight is zeroed: nothing is run.
    pub apply_experts: Option<Estimate>,
}

impl Estimates {
    /// Of what `recipe` asks, by the stages that it names.
    ///
    /// # Errors
    /// If the recipe contradicts itself.
    pub fn of(
        model: &dyn Model,
        recipe: &Recipe,
        pipeline: &Pipeline,
        rates: Rates,
    ) -> Result<Self, Error> {
        let request = recipe.request(pipeline)?;
        let runs = check_runnable(model.spec()).is_ok();
        let samples = recipe.calibration.samples;
        let sequence_len = recipe.calibration.sequence_len.min(model.spec().max_positions);
        let (tokens, block) = (samples as u64 * sequence_len as u64, sequence_len as u64);
        let of = |work| Estimate::of(model, work, TextSize { tokens, block }, rates);
        let of_prune = Work::pruning(model, pipeline, &request, true);
        let experts_only = PruneRequest { weights: WeightTarget::Nothing, ..request.clone() };
        let goes = request.experts.share > Sparsity::ZERO;
        let of_apply = Work::pruning(model, pipeline, &experts_only, false).filter(|_| goes);
        let share = request.experts.share.value();
        let kept = |layer| {
            let experts = model.spec().moe_of(layer).map_or(0, |moe| moe.experts);
            experts - (experts as f64 * share).round() as usize
        };
        let held_out = RepairCalibration::held_out_blocks_of(samples) as u64 * sequence_len as u64;
        let repair = pipeline.repair.as_ref().filter(|_| goes).map(|repair| {
            let text = RepairTextSize { fitted: tokens, held_out, block };
            RepairEstimate::of(model, kept, text, repair.passes(), rates)
        });
        Ok(Self {
            samples,
            sequence_len,
            rates,
            observe: runs.then(|| of(Work::observing(model))),
            prune: of_prune.filter(|_| runs).map(|work| match &repair {
                Some(repair) => repair.added_to(of(work)),
                None => of(work),
            }),
            repair: repair.filter(|_| runs),
            apply_experts: of_apply.map(of),
        })
    }
}
