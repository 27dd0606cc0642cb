//! The expert stage on the model as it loses experts.
//!
//! All blocks go through the model once. Per layer:
//!
//! 1. it is observed, with all its experts, on what the layers before it give without the experts that they lost;
//! 2. the stage chooses by these sums which of its experts stay;
//! 3. it runs again without the others, which gives what the next layer reads.
//!
//! A layer that loses nothing runs once, and so does the last. What was observed of a layer is what a run resumes from: the
//! choice follows from it.

use candle_core::Tensor;
use moeprune_capture::{
    ObserverOptions, StoredLayer, Watch, passes, read_observation, write_observation,
};
use moeprune_core::{ExpertBudget, LayerObservation, LayerPlan, ModelSpec, Observation, Plan};
use moeprune_model::check_runnable;

use super::{
    blocks::Blocks,
    budget::{expert_budget, groups_of},
    decided::Decided,
    expert_layers::{ExpertLayers, Protected},
    grouping::{group, note_of_selected},
    keeping_all,
    ranking::rank,
    router::Router,
    survivors::select,
};
use crate::{
    BudgetSpread, Calibration, Error, Execution, ExpertRequest, Job, KeptExperts, LayerStage,
    Model, PlanInputs, Remedy, Silent,
    finite::Finite,
    session::{Pass, Record, Session},
    walk::{Resumed, Route, Walker},
};

/// Refuses what takes sums of all layers before the first can be decided.
pub(super) fn check(request: &ExpertRequest) -> Result<(), Error> {
    if request.spread == BudgetSpread::Global {
        return Err(Error::refused(
            "where each layer is decided before the next is observed, no budget can be spread over all of them",
            Remedy::Spread(BudgetSpread::Uniform),
        ));
    }
    if request.protect_super_experts {
        return Err(Error::refused(
            "super experts are found by comparing all layers, and where each layer is decided before the next is \
             observed there is nothing to compare with",
            Remedy::IndependentStatistics,
        ));
    }
    Ok(())
}

/// Observes and decides one layer after the other. What was observed before, in a run that is resumed, is not run again.
pub(super) fn decide_in_turn(
    job: &mut Job<'_>,
    session: &mut Session,
    stage: &LayerStage,
    (request, inputs): (&ExpertRequest, PlanInputs<'_>),
) -> Result<Decided, Error> {
    let Some(budget) = expert_budget(job.model.spec(), request)? else {
        return Ok(Decided::default());
    };
    check(request)?;
    let Some(calibration) = inputs.calibration else {
        return Err(Error::refused(
            "an observation is of the model with all its experts, and this choice takes what each layer does once the \
             layers before it have lost theirs: the model runs on calibration text, and there is none",
            Remedy::Calibration,
        ));
    };
    check_runnable(job.model.spec())?;
    let mut in_turn =
        InTurn { job, stage, budget, calibration, seen: Vec::new(), plans: Vec::new() };
    in_turn.take_up(session)?;
    in_turn.go_on(session)?;
    let InTurn { job, seen, plans, .. } = in_turn;
    if let LayerStage::Grouped(grouped) = stage {
        let note = note_of_selected(job.model, &plans, grouped);
        note.iter().for_each(|note| job.progress.note(note));
    }
    let observation = observation(job, calibration, seen)?;
    Ok(Decided { layers: plans, observation: Some(observation) })
}

/// What was observed and decided of the first layers.
struct InTurn<'a, 'j> {
    job: &'a mut Job<'j>,
    stage: &'a LayerStage,
    budget: ExpertBudget,
    calibration: &'a Calibration,
    seen: Vec<LayerObservation>,
    /// Of the layers that have experts.
    plans: Vec<LayerPlan>,
}

impl InTurn<'_, '_> {
    /// Takes over what an earlier process has observed.
    fn take_up(&mut self, session: &Session) -> Result<(), Error> {
        let Job { model, execution, .. } = *self.job;
        let at_layer = Layer { model, execution, stage: self.stage, budget: self.budget };
        for layer in 0..session.observed()? {
            let seen = session.load_observed(layer, |path| Ok(read_observation(path)?.layers))?;
            let plan = at_layer.decide(layer, &seen)?;
            self.plans.extend(plan);
            self.seen.push(seen);
        }
        Ok(())
    }

    /// Walks over the other layers.
    fn go_on(&mut self, session: &mut Session) -> Result<(), Error> {
        let Job { model, execution, .. } = *self.job;
        let (spec, done, last) =
            (model.spec(), self.seen.len(), model.spec().layers.len().saturating_sub(1));
        if done > last {
            return Ok(());
        }
        let at_layer = Layer { model, execution, stage: self.stage, budget: self.budget };
        let (blocks, budget) = (&self.calibration.blocks, self.budget);
        let runs = |layer| 1 + u64::from(layer < last && may_lose(spec, layer, budget));
        let work: Vec<u64> =
            (0..=last).map(|l| runs(l) * passes(spec, l, blocks.tokens())).collect();
        let source = &Finite(model);
        let route = Route {
            source,
            spec,
            blocks: Some(blocks),
            micro_batch: execution.micro_batch(),
            execution,
            step: "observing and choosing experts",
            work: &work,
        };
        let resumed = Some(Resumed { pass: Pass::Observe, done });
        let (seen, plans, calibration) = (&mut self.seen, &mut self.plans, self.calibration);
        let job = &mut *self.job;
        let head = observation(job, calibration, Vec::new())?;
        let mut walker = Walker { session, progress: &mut *job.progress };
        walker.walk(&route, resumed, |mut at| {
            let (layer, hidden) = (at.layer, at.take_hidden());
            let stored = StoredLayer { source, spec, layer, compute: execution.compute() };
            let options = ObserverOptions::default();
            let (sums, outputs) = stored.observe_and_advance(hidden.clone(), options, at.watch)?;
            let sums = sums.rounded();
            if let Some(place) = at.session.observed_place(layer) {
                write_observation(
                    &Observation { layers: vec![sums.clone()], ..head.clone() },
                    &place,
                )?;
            }
            let plan = at_layer.decide(layer, &sums)?;
            *at.hidden = Some(match plan.as_ref().filter(|plan| layer < last && changes(plan)) {
                None => outputs,
                Some(plan) => {
                    drop(outputs);
                    at_layer.run_without(plan, hidden, at.watch)?
                }
            });
            seen.push(sums);
            plans.extend(plan);
            Ok(Some(Record::Observed { layer }))
        })?;
        Ok(())
    }
}

/// What it takes to decide a layer, and to run it as decided.
struct Layer<'a> {
    model: &'a dyn Model,
    execution: &'a Execution,
    stage: &'a LayerStage,
    budget: ExpertBudget,
}

impl Layer<'_> {
    /// Which experts of a layer stay, by its own sums; `None` of a layer without experts.
    fn decide(&self, layer: usize, seen: &LayerObservation) -> Result<Option<LayerPlan>, Error> {
        let (model, spec) = (self.model, self.model.spec());
        if spec.moe_of(layer).is_none() {
            return Ok(None);
        }
        let router = Router::read(model, layer)?;
        let mut behaviour = router.behaviour()?;
        behaviour.routing = seen.routing.as_ref();
        let layers = ExpertLayers {
            behaviours: &[behaviour],
            budget: self.budget,
            blocks: Blocks::new(groups_of(spec).map_or(1, |groups| groups.count)),
            protected: &Protected::none(),
        };
        let plans = match self.stage {
            LayerStage::Ranked(saliency) => rank(&**saliency, &layers)?,
            LayerStage::Grouped(grouped) => group(model, &layers, grouped, &mut Silent)?,
        };
        let close = |plan: LayerPlan| match self.stage {
            LayerStage::Grouped(grouped) if plan.is_open() => {
                select(model, router.view()?, plan, &*grouped.selector)
            }
            _ => Ok(plan),
        };
        plans.into_iter().next().map(close).transpose()
    }

    /// What a layer makes of its inputs without the experts that it loses.
    fn run_without(
        &self,
        plan: &LayerPlan,
        hidden: Vec<Tensor>,
        watch: Watch<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        let layer = plan.layer;
        let plan = Plan { layers: vec![plan.clone()], ..keeping_all(self.model)? };
        let kept = KeptExperts::new(self.model, &plan);
        let compute = self.execution.compute();
        let stored = StoredLayer { source: &kept, spec: kept.spec(), layer, compute };
        let nothing = ObserverOptions { routing: false, inputs: false, hessians: false };
        Ok(stored.observe_and_advance(hidden, nothing, watch)?.1)
    }
}

/// Whether a layer's outputs are others under a plan.
fn changes(plan: &LayerPlan) -> bool {
    plan.experts_after() < plan.experts_before
}

fn may_lose(spec: &ModelSpec, layer: usize, budget: ExpertBudget) -> bool {
    let experts = spec.moe_of(layer).map_or(0, |moe| moe.experts);
    matches!(budget, ExpertBudget::Uniform { keep } if keep < experts)
}

fn observation(
    job: &Job<'_>,
    calibration: &Calibration,
    layers: Vec<LayerObservation>,
) -> Result<Observation, Error> {
    let model_fingerprint = job.model.fingerprint()?;
    Ok(Observation { model_fingerprint, corpora: vec![calibration.tag.clone()], layers })
}
