//! From a model, and perhaps what it did on calibration text, to a plan.

mod blocks;
mod budget;
mod decided;
mod exhaustive;
mod expert_layers;
mod experts;
mod extra;
mod greedy;
mod grouping;
mod in_turn;
mod inputs;
mod nothing;
mod ranking;
mod router;
mod survivors;

pub use budget::expert_budget;
pub(crate) use extra::{check_plan as check_extra, note_of_kept};
pub use inputs::PlanInputs;
pub use router::Router;
pub(crate) use survivors::{check_clusters, check_survivors, choose_survivors_in};

use std::{collections::BTreeSet, thread};

use moeprune_core::{
    ExpertBudget, ExtraPolicy, Fingerprint, LayerPlan, LinearId, ModelSpec, Observation,
    ParameterCounts, Plan, SameModel, Sparsity, StatisticsSource, UnstructuredPlan,
    unstructured_ratio,
};
use rayon::prelude::*;

use crate::{
    Error, ExpertStage, Job, Model, Pipeline, Progress, PruneRequest, Remedy, TOOL, WeightTarget,
    in_codes::{check_reconstructs, stored_as},
    session::Session,
};

use self::{decided::Decided, exhaustive::check_subsets};

/// Version of the plan format this crate writes and reads.
pub const PLAN_FORMAT: u32 = 1;

impl Job<'_> {
    /// Decides which experts go and how sparse the rest becomes. A pure function of its arguments:
    /// the same model, observation, request and stages give the same plan.
    ///
    /// Layers behind the decoder's lose experts by router distance, until they have as many as the
    /// decoder's layer that keeps most ([`PruneRequest::extra`]).
    ///
    /// Reads headers, routers and the norms before them, and nothing else unless the expert stage runs
    /// the model. Where choosing a cluster's survivor takes reading
    /// experts ([`ExpertSelector::reads_experts`](moeprune_core::ExpertSelector::reads_experts): by
    /// default where a cluster has three or more), the layer's survivors are left open, for
    /// [`choose_survivors`](Self::choose_survivors) or [`apply`](Self::apply).
    ///
    /// The expert stage that tries every subset of a layer's experts on what the layer makes of
    /// calibration text (NAEE; Lu et al., arXiv 2402.14800) runs the model once, and each layer's
    /// experts on all tokens; it needs [`PlanInputs::calibration`]. So does the one that drops experts one
    /// after the other, which runs the model once and each expert on some tokens. The one that decides layers in turn
    /// ([`ExpertStage::InTurn`]) runs each layer as it is and then without the experts that it lost; it leaves no
    /// survivor open, takes nothing from an observation, and the plan names the one that it made.
    ///
    /// # Errors
    /// If the request does not fit the model (top-k above the experts left, a total that cannot be
    /// reached), if an observation or a calibration text is needed and missing or of another model,
    /// or if a stage fails.
    pub fn plan<'i>(
        &mut self,
        request: &PruneRequest,
        inputs: impl Into<PlanInputs<'i>>,
    ) -> Result<Plan, Error> {
        let inputs = inputs.into();
        let execution = match (&self.pipeline.experts, inputs.calibration) {
            (ExpertStage::InTurn(_), Some(calibration)) => self.for_blocks(calibration, true)?,
            _ => self.execution.clone(),
        };
        let job = &mut self.on(&execution);
        Ok(job.plan_in(&mut Session::in_memory(), request, inputs)?.plan)
    }

    /// [`plan`](Self::plan) within a run: layers that were observed and decided in turn before are not run again.
    pub(crate) fn plan_in(
        &mut self,
        session: &mut Session,
        request: &PruneRequest,
        inputs: PlanInputs<'_>,
    ) -> Result<Planned, Error> {
        let Job { model, pipeline, .. } = *self;
        if request.weights != WeightTarget::Nothing {
            check_reconstructs(model, pipeline)?;
        }
        note_storage(model, inputs.observation, self.progress)?;
        let begun = Begun::new(model, inputs.observation, request, pipeline)?;
        let too_small = nothing::note(model.spec(), &request.experts)?;
        too_small.iter().for_each(|note| self.progress.note(note));
        let Decided { mut layers, observation } = thread::scope(|scope| {
            // The plan holds it, and so it is there in the end; hashing takes as long as deciding.
            scope.spawn(|| model.fingerprint());
            pipeline.experts.decide(self, session, &request.experts, inputs)
        })?;
        let extra = extra::policy(model.spec(), request.extra);
        if let Some(policy) = extra {
            layers.extend(extra::plan(model, &layers, policy)?);
            layers.sort_by_key(|layer| layer.layer);
        }
        let observed = observation.as_ref().or(inputs.observation);
        let mut plan = begun.finish(layers, observed, request, pipeline)?;
        plan.extra = extra;
        extra::check_made(model.spec(), &plan)?;
        if let Some(calibration) = inputs.calibration
            && pipeline.experts.needs().calibration
        {
            plan.corpora.push(calibration.tag.clone());
            plan.corpora.dedup();
        }
        Ok(Planned { plan, observation })
    }
}

/// A plan, and what was observed to make it, where the expert stage observes the model itself.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) observation: Option<Observation>,
}

/// A plan that is about to be made.
struct Begun<'a> {
    spec: &'a ModelSpec,
    model: &'a dyn Model,
}

impl<'a> Begun<'a> {
    /// Refuses what cannot work.
    fn new(
        model: &'a dyn Model,
        observation: Option<&Observation>,
        request: &PruneRequest,
        pipeline: &Pipeline,
    ) -> Result<Self, Error> {
        let spec = model.spec();
        check_request(spec, request, pipeline)?;
        if let Some(observation) = observation {
            check_observation(observation, model)?;
        }
        Ok(Self { model, spec })
    }

    fn finish(
        self,
        layers: Vec<LayerPlan>,
        observation: Option<&Observation>,
        request: &PruneRequest,
        pipeline: &Pipeline,
    ) -> Result<Plan, Error> {
        let unstructured = unstructured_stage(self.spec, &layers, request, pipeline)?;
        Ok(Plan {
            format: PLAN_FORMAT,
            tool: TOOL.to_owned(),
            model_fingerprint: self.model.fingerprint()?,
            observation_sha256: observation.map(moeprune_capture::observation_sha256),
            corpora: observation.map(|o| o.corpora.clone()).unwrap_or_default(),
            recipe: request.recipe.clone(),
            unstructured,
            repairs: pipeline.repair.is_some() && loses_experts(self.spec, &layers),
            layers,
            extra: None,
        })
    }
}

/// Whether a layer of the decoder's loses experts, so that those that stay can make up for them.
fn loses_experts(spec: &ModelSpec, layers: &[LayerPlan]) -> bool {
    let loses = |plan: &LayerPlan| plan.experts_after() < plan.experts_before;
    layers.iter().any(|plan| plan.layer < spec.layers.len() && loses(plan))
}

/// A plan under which a model stays as it is.
pub(crate) fn keeping_all(model: &dyn Model) -> Result<Plan, Error> {
    Ok(Plan {
        format: PLAN_FORMAT,
        tool: TOOL.to_owned(),
        model_fingerprint: model.fingerprint()?,
        observation_sha256: None,
        corpora: Vec::new(),
        recipe: serde_json::Value::Null,
        unstructured: None,
        repairs: false,
        layers: Vec::new(),
        extra: None,
    })
}

/// Notes an observation of the same model in other files.
fn note_storage(
    model: &dyn Model,
    observation: Option<&Observation>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let Some(observation) = observation else { return Ok(()) };
    let note = stored_otherwise("observation", &observation.model_fingerprint, model)?;
    note.iter().for_each(|note| progress.note(note));
    Ok(())
}

/// The note about an observation or a plan that carries the fingerprint of the same model as `model` in other
/// files: how these differ, and what the experts are stored as here; `None` if there is nothing to say.
///
/// # Errors
/// As [`Model::fingerprint`].
pub fn stored_otherwise(
    what: &str,
    fingerprint: &str,
    model: &dyn Model,
) -> Result<Option<String>, Error> {
    let differs = || Ok::<_, Error>(Fingerprint::difference(fingerprint, &model.fingerprint()?));
    let how = match model.is_of(fingerprint)? {
        SameModel::StoredOtherwise => format!("the same model, {}", differs()?),
        SameModel::RoutersRounded => format!(
            "a model whose routers differ from this one's by rounding to bf16 only, {}; experts whose scores \
             are nearly equal may be chosen otherwise",
            differs()?
        ),
        SameModel::RoutersAlike => format!(
            "a model that has the same routers and other parts of other names or shapes, {}; it is taken to be \
             the same in another format",
            differs()?
        ),
        SameModel::Yes | SameModel::No => return Ok(None),
    };
    let here = match stored_as(model) {
        none if none.is_empty() => String::new(),
        here => format!(" (here, experts are stored as {here})"),
    };
    Ok(Some(format!("note: the {what} was made from {how}{here}")))
}

/// Refuses what cannot work before anything is read or run: an expert share that leaves fewer
/// experts than a token is routed to, or a total that contradicts it.
///
/// # Errors
/// [`Error::Refused`] with what would work.
pub fn check_request(
    spec: &ModelSpec,
    request: &PruneRequest,
    pipeline: &Pipeline,
) -> Result<(), Error> {
    let policy = extra::policy(spec, request.extra);
    if let ExpertStage::Listed(list) = &pipeline.experts {
        let layers = list.as_ref().map_or(Ok(Vec::new()), |list| experts::listed(list, spec))?;
        extra::check_listed(spec, policy, &layers)?;
        return unstructured_stage(spec, &layers, request, pipeline).map(|_| ());
    }
    let Some(budget) = expert_budget(spec, &request.experts)? else {
        return ratio_left(request, pipeline, ParameterCounts::of(spec).linears, 0).map(|_| ());
    };
    if let ExpertBudget::Uniform { keep } = budget {
        extra::check_loadable(spec, policy, keep)?;
    }
    let experts: Vec<usize> =
        spec.layers.iter().filter_map(|l| l.moe()).map(|m| m.experts).collect();
    if let ExpertStage::InTurn(_) = pipeline.experts {
        in_turn::check(&request.experts)?;
    }
    budget.check(&experts).map_err(Error::stage("expert budget", None))?;
    if let ExpertStage::Searched { most_subsets } = pipeline.experts {
        check_subsets(&experts, budget, most_subsets)?;
    }
    let removed = nothing::removed(budget, &experts);
    let counts = ParameterCounts::of(spec);
    let each = counts.experts / experts.iter().sum::<usize>().max(1) as u64;
    let ratio = ratio_left(request, pipeline, counts.linears, each * removed as u64)?;
    match (removed, ratio) {
        (0, None) if policy != Some(ExtraPolicy::Drop) => nothing::refuse(spec, &request.experts),
        _ => Ok(()),
    }
}

/// [`check_request`] of a request to [`Job::prune`], whose masks take their statistics from the same run.
///
/// # Errors
/// Moreover, if weights are to be zeroed by an observation of the model as it is, and layers that are decided in turn leave
/// none.
pub fn check_prune(
    spec: &ModelSpec,
    request: &PruneRequest,
    pipeline: &Pipeline,
) -> Result<(), Error> {
    let stored = request.promises.statistics == StatisticsSource::Stored
        && request.weights != WeightTarget::Nothing;
    let in_turn = matches!(pipeline.experts, ExpertStage::InTurn(_));
    if stored && in_turn && request.experts.share > Sparsity::ZERO {
        return Err(Error::refused(
            "weights are to be zeroed by statistics of the unpruned model, which is not observed where each layer is \
             observed after the layers before it have lost experts",
            Remedy::IndependentStatistics,
        ));
    }
    check_request(spec, request, pipeline)
}

/// A total that removing experts alone exceeds by no more than this share is met.
const TOTAL_TOLERANCE: f64 = 5e-4;

/// The ratio of what is left that reaches the total, `None` if no weight is to be zeroed.
fn ratio_left(
    request: &PruneRequest,
    pipeline: &Pipeline,
    linears: u64,
    removed: u64,
) -> Result<Option<Sparsity>, Error> {
    let fixed = pipeline.weights.pattern().fixed_ratio();
    match (request.weights, fixed) {
        (WeightTarget::Nothing, _) => return Ok(None),
        (_, Some(ratio)) | (WeightTarget::Ratio(ratio), None) => return Ok(Some(ratio)),
        (WeightTarget::Total, None) => {}
    }
    let reached = removed as f64 / linears.max(1) as f64;
    if reached > request.total.value() + TOTAL_TOLERANCE {
        let problem = format!(
            "removing the experts alone takes away {:.2} % of the decoder Linears, more than the \
             total of {} that is asked for",
            100.0 * reached,
            request.total
        );
        return Err(Error::refused(problem, Remedy::LargerTotal));
    }
    let ratio = unstructured_ratio(request.total, linears, removed, linears - removed)?;
    Ok((ratio > Sparsity::ZERO).then_some(ratio))
}

/// What tells one model from another.
pub(crate) const DIFFERS: &str =
    "parts, their shapes, values of routers, or how many experts a token takes differ";

/// Refuses an observation that is not of this model.
pub(crate) fn check_observation(observation: &Observation, model: &dyn Model) -> Result<(), Error> {
    let spec = &model.spec().decoded();
    let same = model.is_of(&observation.model_fingerprint)?;
    if same == SameModel::No {
        return Err(Error::Request(format!(
            "the observation is of another model (fingerprint {}, this model's is {}): {}; observe \
             this model",
            observation.model_fingerprint,
            model.fingerprint()?,
            DIFFERS
        )));
    }
    if observation.layers.len() != spec.layers.len() {
        return Err(Error::Request(format!(
            "the observation has {} layers, the model {}; observe this model again",
            observation.layers.len(),
            spec.layers.len()
        )));
    }
    for (l, (seen, layer)) in observation.layers.iter().zip(&spec.layers).enumerate() {
        let sites: BTreeSet<LinearId> = spec.linears(l).iter().map(|linear| linear.reads).collect();
        // Of models that are known by their routers alone, other parts may have other names.
        let named = same != SameModel::RoutersAlike;
        if let Some(site) = seen.inputs.keys().find(|site| named && !sites.contains(site)) {
            return Err(Error::Request(format!(
                "the observation has sums under {site} in layer {l}, where no Linear of the model \
                 has its own; observe this model again"
            )));
        }
        let (seen, experts) =
            (seen.routing.as_ref().map(|r| r.experts()), layer.moe().map(|m| m.experts));
        if seen.is_some() && seen != experts {
            return Err(Error::Request(format!(
                "the observation has {} experts in layer {l}, the model {}; observe this model \
                 again",
                seen.unwrap_or(0),
                experts.unwrap_or(0)
            )));
        }
    }
    Ok(())
}

fn unstructured_stage(
    spec: &ModelSpec,
    layers: &[LayerPlan],
    request: &PruneRequest,
    pipeline: &Pipeline,
) -> Result<Option<UnstructuredPlan>, Error> {
    let before = ParameterCounts::of(spec).linears;
    let after = ParameterCounts::of(&spec.without_experts(layers)).linears;
    let ratio = ratio_left(request, pipeline, before, before - after)?;
    let walks = request.promises.statistics == StatisticsSource::Sequential
        && pipeline.weights.needs().inputs;
    let undecoded = spec.has_opaque_experts() || spec.undecoded.is_some();
    if ratio.is_some() && (walks || undecoded) {
        // What only the forward pass can give is not planned for a model that cannot be run, nor zeros
        // in weights that are not decoded.
        crate::runs::check_runs(spec)?;
    }
    let fixed = pipeline.weights.pattern().fixed_ratio().is_some();
    let implied =
        |ratio: Sparsity| 1.0 - (after as f64 / before.max(1) as f64) * (1.0 - ratio.value());
    Ok(ratio.map(|ratio| UnstructuredPlan {
        total_sparsity: if fixed { implied(ratio) } else { request.total.value() },
        ratio: ratio.value(),
        layer_ratios: Vec::new(),
        reconstructs: pipeline.weights.method().is_some() || pipeline.refit.is_some(),
        expert_ratios: Vec::new(),
        promises: Some(request.promises),
    }))
}

/// The router of each layer that has experts.
///
/// # Errors
/// If one cannot be read or is not finite.
pub fn routers(model: &dyn Model) -> Result<Vec<Router>, Error> {
    let layers = model.spec().layers.iter().enumerate();
    let layers = layers.filter(|(_, spec)| spec.moe().is_some()).map(|(layer, _)| layer);
    let layers: Vec<usize> = layers.collect();
    layers.into_par_iter().map(|layer| Router::read(model, layer)).collect()
}
