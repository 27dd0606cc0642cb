//! The expert stage: which experts of each layer go, decided in the way that a pipeline holds.

use moeprune_core::{LayerBehaviour, LayerPlan, ModelSpec, SurvivorReason};
use moeprune_model::check_runnable;

use super::{
    blocks::Blocks,
    budget::{expert_budget, groups_of},
    decided::Decided,
    exhaustive::drop_least_missed,
    expert_layers::{ExpertLayers, Protected},
    greedy::{Greedy, PIECE, drop_one_by_one},
    grouping::group,
    in_turn::decide_in_turn,
    ranking::{rank, without},
    routers,
};
use crate::{
    Error, ExpertRequest, ExpertStage, Job, KeepList, PlanInputs, Remedy, session::Session,
};

impl ExpertStage {
    /// Decides which experts of each layer go. Survivors that take reading experts are left open, unless layers are
    /// decided in turn.
    pub(super) fn decide(
        &self,
        job: &mut Job<'_>,
        session: &mut Session,
        request: &ExpertRequest,
        inputs: PlanInputs<'_>,
    ) -> Result<Decided, Error> {
        let layers = match self {
            Self::InTurn(stage) => {
                return decide_in_turn(job, session, stage, (request, inputs));
            }
            Self::Ranked(saliency) => {
                with_layers(self, job, request, inputs, |_, layers| rank(&**saliency, layers))
            }
            Self::Grouped(grouped) => with_layers(self, job, request, inputs, |job, layers| {
                group(job.model, layers, grouped, job.progress)
            }),
            Self::Listed(Some(list)) => listed(list, job.model.spec()),
            Self::Listed(None) => Err(Error::refused(
                "a list says which experts stay, and there is none",
                Remedy::KeepList,
            )),
            Self::Greedy { tokens } => match inputs.calibration {
                Some(calibration) => {
                    check_runnable(job.model.spec())?;
                    with_layers(self, job, request, inputs, |job, layers| {
                        drop_one_by_one(
                            job,
                            &Greedy { calibration, tokens: *tokens, piece: PIECE, layers },
                        )
                    })
                }
                None if expert_budget(job.model.spec(), request)?.is_none() => Ok(Vec::new()),
                None => Err(Error::refused(
                    "choosing experts by what a layer loses runs the model on calibration text, and \
                     there is none",
                    Remedy::Calibration,
                )),
            },
            Self::Searched { .. } => match inputs.calibration {
                Some(_) if groups_of(job.model.spec()).is_some() => Err(Error::Request(
                    "trying all subsets is not implemented for routers that select groups of \
                     experts; rank experts or group them"
                        .into(),
                )),
                Some(calibration) => {
                    check_runnable(job.model.spec())?;
                    drop_least_missed(job, calibration, request)
                }
                None if expert_budget(job.model.spec(), request)?.is_none() => Ok(Vec::new()),
                None => Err(Error::refused(
                    "trying all subsets runs the model on calibration text, and there is none",
                    Remedy::Calibration,
                )),
            },
        }?;
        Ok(Decided { layers, observation: None })
    }
}

/// The plans of the layers of which a list keeps some experts.
pub(super) fn listed(list: &KeepList, spec: &ModelSpec) -> Result<Vec<LayerPlan>, Error> {
    let plan = |(layer, dropped): (usize, Vec<usize>)| {
        let experts = spec.moe_of(layer).map_or(0, |moe| moe.experts);
        without(layer, experts, dropped, |_| SurvivorReason::Listed)
    };
    Ok(list.dropped(spec)?.into_iter().map(plan).collect())
}

/// Decides by what the layers' experts do, as far as it was observed.
fn with_layers(
    stage: &ExpertStage,
    job: &mut Job<'_>,
    request: &ExpertRequest,
    inputs: PlanInputs<'_>,
    decide: impl FnOnce(&mut Job<'_>, &ExpertLayers<'_>) -> Result<Vec<LayerPlan>, Error>,
) -> Result<Vec<LayerPlan>, Error> {
    let Some(budget) = expert_budget(job.model.spec(), request)? else { return Ok(Vec::new()) };
    let (observation, protect) = (inputs.observation, request.protect_super_experts);
    if observation.is_none() && (protect || stage.needs().observation) {
        let what =
            if protect { "protecting super experts" } else { "this way of choosing experts" };
        let problem = format!("{what} needs an observation of the model, and there is none");
        return Err(Error::refused(problem, Remedy::Observation));
    }
    let routers = routers(job.model)?;
    let behaviours = routers
        .iter()
        .map(|router| {
            let routing = observation.and_then(|o| o.layers[router.layer].routing.as_ref());
            Ok(LayerBehaviour { routing, ..router.behaviour()? })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let protected = if protect { Protected::find(&behaviours)? } else { Protected::none() };
    let blocks = Blocks::new(groups_of(job.model.spec()).map_or(1, |groups| groups.count));
    let layers = ExpertLayers { behaviours: &behaviours, budget, blocks, protected: &protected };
    decide(job, &layers)
}
