//! From a model, and perhaps what it did on calibration text, to a plan.

mod budget;
mod exhaustive;
mod ranking;
mod request;
mod survivors;

pub use budget::expert_budget;
pub use request::{BudgetSpread, ExpertRequest, PruneRequest, WeightTarget};
pub use survivors::{Router, choose_survivors};
pub(crate) use survivors::{check_clusters, check_survivors, choose_survivors_in};

use std::collections::BTreeSet;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    ExpertBudget, LayerBehaviour, LayerPlan, LinearId, ModelSpec, Observation, ParameterCounts,
    Partition, Plan, SameModel, Sparsity, UnstructuredPlan, unstructured_ratio,
};
use moeprune_model::check_runnable;
use rayon::prelude::*;

use crate::{Calibration, Error, ExpertStage, Grouped, Job, Pipeline, Progress};

use self::{
    budget::contract,
    exhaustive::{check_subsets, drop_least_missed},
    ranking::Protected,
    survivors::select,
};

/// Version of the plan format this crate writes and reads.
pub const PLAN_FORMAT: u32 = 1;

impl Job<'_> {
    /// Decides which experts go and how sparse the rest becomes. A pure function of its arguments:
    /// the same model, observation, request and stages give the same plan.
    ///
    /// Reads headers and routers, nothing else. Where choosing a cluster's survivor takes reading
    /// experts ([`ExpertSelector::reads_experts`](moeprune_core::ExpertSelector::reads_experts): by
    /// default where a cluster has three or more), the layer's survivors are left open, for
    /// [`choose_survivors`] or [`apply`](Self::apply).
    ///
    /// # Errors
    /// If the request does not fit the model (top-k above the experts left, a total that cannot be
    /// reached), if an observation is needed and missing or of another model, or if a stage fails.
    pub fn plan(
        &mut self,
        request: &PruneRequest,
        observation: Option<&Observation>,
    ) -> Result<Plan, Error> {
        note_storage(self.model, observation, self.progress)?;
        let begun = Begun::new(self.model, observation, request, self.pipeline)?;
        if self.pipeline.experts.needs().calibration && request.experts.share > Sparsity::ZERO {
            return Err(Error::Request(NEEDS_CALIBRATION.into()));
        }
        let layers = expert_stage(self.model, observation, request, self.pipeline, self.progress)?;
        begun.finish(layers, observation, request, self.pipeline)
    }

    /// As [`plan`](Self::plan), for the expert stage that tries every subset of a layer's experts on
    /// what the layer makes of calibration text (NAEE; Lu et al., arXiv 2402.14800). Runs the model
    /// once, and each layer's experts on all tokens.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); if there are more subsets than the pipeline allows, or the budget is
    /// not uniform.
    pub fn plan_searched(
        &mut self,
        request: &PruneRequest,
        calibration: &Calibration,
        observation: Option<&Observation>,
    ) -> Result<Plan, Error> {
        note_storage(self.model, observation, self.progress)?;
        let begun = Begun::new(self.model, observation, request, self.pipeline)?;
        check_runnable(begun.spec)?;
        let Job { model, execution, .. } = *self;
        let layers =
            drop_least_missed(model, calibration, &request.experts, execution, self.progress)?;
        let mut plan = begun.finish(layers, observation, request, self.pipeline)?;
        plan.corpora.push(calibration.tag.clone());
        plan.corpora.dedup();
        Ok(plan)
    }
}

/// A plan that is about to be made.
struct Begun<'a> {
    spec: &'a ModelSpec,
    fingerprint: String,
}

impl<'a> Begun<'a> {
    /// Refuses what cannot work.
    fn new(
        checkpoint: &'a Checkpoint,
        observation: Option<&Observation>,
        request: &PruneRequest,
        pipeline: &Pipeline,
    ) -> Result<Self, Error> {
        let spec = checkpoint.spec();
        let fingerprint = checkpoint.fingerprint()?;
        check_request(spec, request, pipeline)?;
        if let Some(observation) = observation {
            check_observation(observation, checkpoint)?;
        }
        Ok(Self { spec, fingerprint })
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
            tool: concat!("moeprune ", env!("CARGO_PKG_VERSION")).to_owned(),
            model_fingerprint: self.fingerprint,
            observation_sha256: observation.map(moeprune_capture::observation_sha256),
            corpora: observation.map(|o| o.corpora.clone()).unwrap_or_default(),
            recipe: request.recipe.clone(),
            unstructured,
            layers,
        })
    }
}

/// Notes an observation of the same model in other files.
fn note_storage(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    if let Some(observation) = observation
        && checkpoint.is_of(&observation.model_fingerprint)? == SameModel::StoredOtherwise
    {
        progress.note(&stored_otherwise("observation"));
    }
    Ok(())
}

/// The note about an observation or a plan of the same model in other files.
#[must_use]
pub fn stored_otherwise(what: &str) -> String {
    format!(
        "note: the {what} was made from the same model, stored under other tensor names or in other \
         element types"
    )
}

/// Refuses what cannot work before anything is read or run: an expert share that leaves fewer
/// experts than a token is routed to, or a total that contradicts it.
///
/// # Errors
/// [`Error::Request`] with what would work.
pub fn check_request(
    spec: &ModelSpec,
    request: &PruneRequest,
    pipeline: &Pipeline,
) -> Result<(), Error> {
    let Some(budget) = expert_budget(spec, &request.experts)? else {
        return ratio_left(request, pipeline, ParameterCounts::of(spec).linears, 0).map(|_| ());
    };
    let experts: Vec<usize> =
        spec.layers.iter().filter_map(|l| l.moe()).map(|m| m.experts).collect();
    budget.check(&experts).map_err(Error::stage("expert budget", None))?;
    if let ExpertStage::Searched { most_subsets } = pipeline.experts {
        check_subsets(&experts, budget, most_subsets)?;
    }
    let removed = match budget {
        ExpertBudget::Uniform { keep } => experts.iter().map(|n| n - keep).sum::<usize>(),
        ExpertBudget::Global { keep, .. } => experts.iter().sum::<usize>() - keep,
        _ => 0,
    };
    let counts = ParameterCounts::of(spec);
    let each = counts.experts / experts.iter().sum::<usize>().max(1) as u64;
    ratio_left(request, pipeline, counts.linears, each * removed as u64).map(|_| ())
}

const NEEDS_CALIBRATION: &str =
    "trying all subsets runs the model: pass --calibration FILE to `plan`, or use `prune`";

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
        return Err(Error::Request(format!(
            "removing the experts alone takes away {:.2} % of the decoder Linears, more than the \
             total of {} that is asked for; raise --sparsity, lower --expert-sparsity, or give \
             both the same share to remove experts only",
            100.0 * reached,
            request.total
        )));
    }
    let ratio = unstructured_ratio(request.total, linears, removed, linears - removed)?;
    Ok((ratio > Sparsity::ZERO).then_some(ratio))
}

/// Refuses an observation that is not of this model.
pub(crate) fn check_observation(
    observation: &Observation,
    checkpoint: &Checkpoint,
) -> Result<(), Error> {
    let spec = checkpoint.spec();
    if checkpoint.is_of(&observation.model_fingerprint)? == SameModel::No {
        return Err(Error::Request(format!(
            "the observation is of another model (fingerprint {}, this model's is {}); observe \
             this model",
            observation.model_fingerprint,
            checkpoint.fingerprint()?
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
        if let Some(site) = seen.inputs.keys().find(|site| !sites.contains(site)) {
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

fn expert_stage(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    request: &PruneRequest,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerPlan>, Error> {
    let Some(budget) = expert_budget(checkpoint.spec(), &request.experts)? else {
        return Ok(Vec::new());
    };
    let protect = request.experts.protect_super_experts;
    if observation.is_none() && (protect || pipeline.experts.needs().observation) {
        return Err(Error::Request(format!(
            "{} needs an observation: run `moeprune observe` first and pass --observation FILE",
            if protect { "protecting super experts" } else { "this way of choosing experts" }
        )));
    }
    let routers = routers(checkpoint)?;
    let behaviours: Vec<LayerBehaviour<'_>> = routers
        .iter()
        .map(|router| {
            Ok(LayerBehaviour {
                layer: router.layer,
                router: router.view()?,
                routing: observation.and_then(|o| o.layers[router.layer].routing.as_ref()),
            })
        })
        .collect::<Result<_, Error>>()?;
    let protected = if protect { Protected::find(&behaviours)? } else { Protected::none() };
    match &pipeline.experts {
        ExpertStage::Ranked(saliency) => {
            ranking::rank(&**saliency, &behaviours, &budget, &protected)
        }
        ExpertStage::Grouped(grouped) => {
            group(checkpoint, &behaviours, (budget, &protected), grouped, progress)
        }
        ExpertStage::Searched { .. } => Err(Error::Request(NEEDS_CALIBRATION.into())),
    }
}

/// Groups alike experts; which of each group survives is left open where that takes reading them.
fn group(
    checkpoint: &Checkpoint,
    behaviours: &[LayerBehaviour<'_>],
    (budget, protected): (ExpertBudget, &Protected),
    grouped: &Grouped,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerPlan>, Error> {
    progress.begin("clustering experts", behaviours.len() as u64, "layers");
    let distances = behaviours
        .par_iter()
        .enumerate()
        .map(|(index, behaviour)| {
            let distances = grouped
                .similarity
                .distances(behaviour)
                .map_err(Error::stage("similarity", behaviour.layer))?;
            contract("similarity", behaviour.layer, behaviour.experts(), distances.len())?;
            protected.set_apart(index, distances)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let partitions = grouped
        .clustering
        .cluster(&distances, &budget)
        .map_err(Error::stage("clustering", None))?;
    check_partitions(behaviours, &partitions, budget)?;
    progress.end();

    behaviours
        .iter()
        .zip(partitions)
        .enumerate()
        .map(|(index, (behaviour, clusters))| {
            protected.check_alone(index, behaviour.layer, &clusters)?;
            let layer = behaviour.layer;
            contract("clustering", layer, behaviour.experts(), clusters.experts())?;
            if let ExpertBudget::Uniform { keep } = budget {
                contract("clustering", layer, keep, clusters.len())?;
            }
            let tokens = behaviour.routing.map(|r| r.counts.clone()).unwrap_or_default();
            let open = LayerPlan {
                layer,
                experts_before: behaviour.experts(),
                clusters,
                survivors: Vec::new(),
                tokens,
                dropped: Vec::new(),
            };
            if grouped.selector.reads_experts(&open.clusters) {
                return Ok(open);
            }
            select(checkpoint, behaviour.router, open, &*grouped.selector)
        })
        .collect()
}

/// Refuses a clustering that does not give what the budget asks of it.
fn check_partitions(
    behaviours: &[LayerBehaviour<'_>],
    partitions: &[Partition],
    budget: ExpertBudget,
) -> Result<(), Error> {
    if partitions.len() != behaviours.len() {
        return Err(Error::Contract {
            stage: "clustering",
            layer: behaviours.first().map_or(0, |b| b.layer),
            problem: format!("{} partitions for {} layers", partitions.len(), behaviours.len()),
        });
    }
    if let ExpertBudget::Global { keep, min_per_layer } = budget {
        let got: usize = partitions.iter().map(Partition::len).sum();
        contract("clustering", behaviours[0].layer, keep, got)?;
        for (behaviour, partition) in behaviours.iter().zip(partitions) {
            let least = min_per_layer.min(behaviour.experts());
            if partition.len() < least {
                contract("clustering", behaviour.layer, least, partition.len())?;
            }
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
    let fixed = pipeline.weights.pattern().fixed_ratio().is_some();
    let implied =
        |ratio: Sparsity| 1.0 - (after as f64 / before.max(1) as f64) * (1.0 - ratio.value());
    Ok(ratio.map(|ratio| UnstructuredPlan {
        total_sparsity: if fixed { implied(ratio) } else { request.total.value() },
        ratio: ratio.value(),
        layer_ratios: Vec::new(),
        reconstructs: pipeline.weights.method().is_some(),
        expert_ratios: Vec::new(),
        promises: Some(request.promises),
    }))
}

/// The router of each layer that has experts.
///
/// # Errors
/// If one cannot be read or is not finite.
pub fn routers(checkpoint: &Checkpoint) -> Result<Vec<Router>, Error> {
    let layers = checkpoint.spec().layers.iter().enumerate();
    layers
        .filter(|(_, spec)| spec.moe().is_some())
        .map(|(layer, _)| Router::read(checkpoint, layer))
        .collect()
}
