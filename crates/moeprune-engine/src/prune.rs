//! The whole job within one run: observe, plan, apply.

use moeprune_core::{Sparsity, StatisticsSource};

use crate::{
    Applied, Calibration, Error, ExpertStage, Inputs, Job, Model, PlanInputs, PruneRequest, Run,
    WeightTarget,
    apply::apply_plan,
    estimate::bytes_left,
    observe::observe_in,
    plan::{Planned, check_prune, choose_survivors_in},
    repair::check_repair_memory,
    session::RunIdentity,
};

impl Job<'_> {
    /// Observes the model on calibration text, plans, and applies the plan with statistics from the
    /// same text. Begins the run, or resumes it.
    ///
    /// The model is observed whenever experts go, unless a list says which stay: a cluster of two is always a
    /// tie, and the tokens routed to each expert decide ties better than the lowest index does. Layers that are decided in
    /// turn are observed while the plan is made.
    ///
    /// # Errors
    /// As [`observe`](Self::observe), [`plan`](Self::plan) and [`apply`](Self::apply).
    pub fn prune(
        &mut self,
        run: &mut Run<'_>,
        calibration: &Calibration,
        request: &PruneRequest,
    ) -> Result<Applied, Error> {
        let Job { model, pipeline, .. } = *self;
        check_prune(model.spec(), request, pipeline)?;
        let execution = &self.for_blocks(calibration, true)?;
        let mut identity = RunIdentity::new("prune", model)?
            .with_recipe(&request.recipe, pipeline)
            .with_calibration(calibration)
            .with_execution(execution);
        if pipeline.repair.is_some() || pipeline.refit.is_some() {
            identity = identity.with_repair(&calibration.for_repair());
        }
        if request.experts.share > Sparsity::ZERO || pipeline.refit.is_some() {
            check_repair_memory(self, calibration)?;
        }
        run.begin(model, &identity)?;
        check_room(run, model, calibration, request)?;
        let job = &mut self.on(execution);
        // Where no weight is zeroed nothing is taken from an observation, and a repair takes the text.
        let stored = request.promises.statistics == StatisticsSource::Stored
            && request.weights != WeightTarget::Nothing;
        let listed = matches!(pipeline.experts, ExpertStage::Listed(_));
        let in_turn = matches!(pipeline.experts, ExpertStage::InTurn(_));
        let chooses = request.experts.share > Sparsity::ZERO && !listed && !in_turn;
        let observation = if chooses || stored {
            let observation = observe_in(job, &mut run.session, calibration)?;
            run.end_step("observing");
            Some(observation)
        } else {
            None
        };
        let inputs =
            PlanInputs { observation: observation.as_ref(), calibration: Some(calibration) };
        let Planned { plan, observation: own } = job.plan_in(&mut run.session, request, inputs)?;
        let observation = observation.or(own);
        let plan = choose_survivors_in(job, &mut run.session, &plan)?;
        run.end_step("planning");
        let inputs = match &observation {
            Some(observation) if stored => Inputs::Observation(observation),
            _ => Inputs::Calibration(calibration),
        };
        apply_plan(job, run, plan, inputs, observation.as_ref())
    }
}

/// Refuses a disk that is too small before the text goes through the model. How many experts go is not known yet, so
/// nine tenths of what is left without their share count; what is known when writing begins is checked then.
fn check_room(
    run: &Run<'_>,
    model: &dyn Model,
    calibration: &Calibration,
    request: &PruneRequest,
) -> Result<(), Error> {
    let written = bytes_left(model, request.experts.share) / 10 * 9;
    let hidden = calibration.tag.tokens() * model.spec().hidden as u64 * 4;
    Ok(run.output.check_room(written + hidden)?)
}
