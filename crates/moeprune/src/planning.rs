//! From a model, and perhaps what it did on calibration text, to a plan.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    ExpertBudget, FeedForward, LayerBehaviour, LayerPlan, ModelSpec, Observation, ParameterCounts,
    Partition, Plan, SameModel, Sparsity, UnstructuredPlan, unstructured_ratio,
};
use moeprune_model::check_runnable;
use moeprune_score::MaskPattern as _;
use rayon::prelude::*;

use crate::{
    Calibration, Error, Execution, Pipeline, Progress, Recipe,
    exhaustive::{check_subsets, drop_least_missed},
    ranking::{self, Protected},
    recipe::{Budget, EXHAUSTIVE, Pattern},
    survivors::{Router, select},
};

/// Version of the plan format this crate writes and reads.
pub const PLAN_FORMAT: u32 = 1;

/// Decides which experts go and how sparse the rest becomes. A pure function of its arguments:
/// the same model, observation, recipe and stages give the same plan.
///
/// Reads headers and routers, nothing else. Where choosing a cluster's survivor takes reading
/// experts ([`ExpertSelector::reads_experts`](moeprune_core::ExpertSelector::reads_experts): by
/// default where a cluster has three or more), the layer's survivors are left open, for
/// [`choose_survivors`](crate::choose_survivors) or [`apply`](crate::apply()).
///
/// # Errors
/// If the recipe contradicts itself or does not fit the model (top-k above the experts left, a
/// total that cannot be reached), if an observation is needed and missing or of another model, or
/// if a stage fails.
pub fn plan(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Plan, Error> {
    let (spec, fingerprint) = begin(checkpoint, observation, recipe, progress)?;
    if recipe.experts.criterion.name == EXHAUSTIVE && recipe.experts.sparsity > Sparsity::ZERO {
        return Err(Error::Request(
            "trying all subsets runs the model: pass --calibration FILE to `plan`, or use `prune`"
                .into(),
        ));
    }
    let layers = expert_stage(checkpoint, observation, recipe, pipeline, progress)?;
    finish(spec, fingerprint, layers, observation, recipe, pipeline)
}

/// As [`plan`], for the criterion that tries every subset of a layer's experts on what the layer
/// makes of calibration text (NAEE; Lu et al., arXiv 2402.14800). Runs the model once, and each
/// layer's experts on all tokens.
///
/// # Errors
/// As [`plan`]; if there are more subsets than the recipe allows, or the budget is not uniform.
pub fn plan_exhaustive(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Plan, Error> {
    let (spec, fingerprint) = begin(checkpoint, observation, recipe, progress)?;
    check_runnable(spec)?;
    let layers = drop_least_missed(checkpoint, calibration, recipe, on, progress)?;
    let mut plan = finish(spec, fingerprint, layers, observation, recipe, pipeline)?;
    plan.corpora.push(calibration.tag.clone());
    plan.corpora.dedup();
    Ok(plan)
}

/// Refuses what cannot work. Returns what the model is, and its fingerprint.
fn begin<'a>(
    checkpoint: &'a Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<(&'a ModelSpec, String), Error> {
    let spec = checkpoint.spec();
    let fingerprint = checkpoint.fingerprint()?;
    check_request(spec, recipe)?;
    if let Some(observation) = observation {
        if let Some(note) = check_observation(observation, checkpoint)? {
            progress.note(&note);
        }
    }
    Ok((spec, fingerprint))
}

fn finish(
    spec: &ModelSpec,
    model_fingerprint: String,
    layers: Vec<LayerPlan>,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
) -> Result<Plan, Error> {
    let unstructured = unstructured_stage(spec, &layers, recipe, pipeline)?;
    Ok(Plan {
        format: PLAN_FORMAT,
        tool: concat!("moeprune ", env!("CARGO_PKG_VERSION")).to_owned(),
        model_fingerprint,
        observation_sha256: observation.map(moeprune_capture::observation_sha256),
        corpora: observation.map(|o| o.corpora.clone()).unwrap_or_default(),
        recipe: serde_json::to_value(recipe)
            .map_err(|e| Error::Recipe(format!("cannot be written as JSON: {e}")))?,
        unstructured,
        layers,
    })
}

/// Refuses what cannot work before anything is read or run: an expert share that leaves fewer
/// experts than a token is routed to, or a total that contradicts it.
///
/// # Errors
/// [`Error::Recipe`] or [`Error::Request`] with what would work.
pub fn check_request(spec: &ModelSpec, recipe: &Recipe) -> Result<(), Error> {
    recipe.check()?;
    let Some(budget) = expert_budget(spec, recipe)? else {
        return ratio_left(recipe, ParameterCounts::of(spec).linears, 0).map(|_| ());
    };
    let experts: Vec<usize> =
        spec.layers.iter().filter_map(|l| l.moe()).map(|m| m.experts).collect();
    budget.check(&experts).map_err(Error::stage("expert budget", None))?;
    if recipe.experts.criterion.name == EXHAUSTIVE {
        check_subsets(&experts, budget, recipe)?;
    }
    let removed = match budget {
        ExpertBudget::Uniform { keep } => experts.iter().map(|n| n - keep).sum::<usize>(),
        ExpertBudget::Global { keep, .. } => experts.iter().sum::<usize>() - keep,
        _ => 0,
    };
    let counts = ParameterCounts::of(spec);
    let each = counts.experts / experts.iter().sum::<usize>().max(1) as u64;
    ratio_left(recipe, counts.linears, each * removed as u64).map(|_| ())
}

/// A total that is missed by no more than this share is met.
const TOTAL_TOLERANCE: f64 = 5e-4;

/// The ratio of what is left that reaches the total, `None` if no weight is to be zeroed.
fn ratio_left(recipe: &Recipe, linears: u64, removed: u64) -> Result<Option<Sparsity>, Error> {
    if !recipe.prunes_weights() {
        return Ok(None);
    }
    if let Pattern::NOfM(pattern) = recipe.weights.pattern {
        return Ok(pattern.fixed_ratio());
    }
    if let Some(ratio) = recipe.weights.ratio {
        return Ok(Some(ratio));
    }
    let reached = removed as f64 / linears.max(1) as f64;
    if reached > recipe.sparsity.value() + TOTAL_TOLERANCE {
        return Err(Error::Request(format!(
            "removing the experts alone takes away {:.2} % of the decoder Linears, more than the \
             total of {} that is asked for; raise --sparsity, lower --expert-sparsity, or give \
             both the same share to remove experts only",
            100.0 * reached,
            recipe.sparsity
        )));
    }
    let ratio = unstructured_ratio(recipe.sparsity, linears, removed, linears - removed)?;
    Ok((ratio > Sparsity::ZERO).then_some(ratio))
}

/// The budget that the recipe means for this model, `None` when no expert goes.
pub(crate) fn expert_budget(
    spec: &ModelSpec,
    recipe: &Recipe,
) -> Result<Option<ExpertBudget>, Error> {
    let share = recipe.experts.sparsity.value();
    let moe: Vec<_> = spec.layers.iter().filter_map(|l| l.moe()).collect();
    let (Some(experts), Some(top_k)) =
        (moe.iter().map(|m| m.experts).min(), moe.iter().map(|m| m.top_k).max())
    else {
        return Ok(None);
    };
    if share == 0.0 {
        return Ok(None);
    }
    if let Some(groups) = moe.iter().find_map(|m| m.router.groups()) {
        return Err(Error::Request(format!(
            "the model routes by {} groups of experts; removing experts of groups is not \
             implemented",
            groups.count
        )));
    }
    let left = |n: usize| n - (n as f64 * share).round() as usize;
    match recipe.experts.budget {
        Budget::Uniform => {
            if moe.iter().any(|m| m.experts != experts) {
                return Err(Error::Request(
                    "the layers have different numbers of experts, so they cannot all keep the \
                     same number; use --budget global"
                        .into(),
                ));
            }
            let keep = left(experts);
            if keep < top_k {
                return Err(Error::Request(format!(
                    "removing {} of {experts} experts leaves {keep} in a layer, but every token \
                     is routed to {top_k}; lower --expert-sparsity to at most {:.4}",
                    recipe.experts.sparsity,
                    (experts - top_k) as f64 / experts as f64
                )));
            }
            Ok(Some(ExpertBudget::Uniform { keep }))
        }
        Budget::Global => {
            let total: usize = moe.iter().map(|m| m.experts).sum();
            let (keep, least) = (left(total), moe.len() * top_k);
            if keep < least {
                return Err(Error::Request(format!(
                    "removing {} of {total} experts leaves {keep} over {} layers, but every layer \
                     needs {top_k}; lower --expert-sparsity to at most {:.4}",
                    recipe.experts.sparsity,
                    moe.len(),
                    (total - least) as f64 / total as f64
                )));
            }
            Ok(Some(ExpertBudget::Global { keep, min_per_layer: top_k }))
        }
    }
}

/// Refuses an observation that is not of this model. Returns what is to be said of one that is.
pub(crate) fn check_observation(
    observation: &Observation,
    checkpoint: &Checkpoint,
) -> Result<Option<String>, Error> {
    let spec = checkpoint.spec();
    let same = checkpoint.is_of(&observation.model_fingerprint)?;
    if same == SameModel::No {
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
    Ok((same == SameModel::StoredOtherwise).then(|| stored_otherwise("observation")))
}

/// What is said of an observation or a plan of the same model in other files.
pub(crate) fn stored_otherwise(what: &str) -> String {
    format!(
        "note: the {what} was made from the same model, stored under other tensor names or in other \
         element types"
    )
}

fn expert_stage(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerPlan>, Error> {
    let Some(budget) = expert_budget(checkpoint.spec(), recipe)? else { return Ok(Vec::new()) };
    let protect = recipe.experts.protect_super_experts;
    if observation.is_none() && (protect || pipeline.needs_observation()) {
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
    if let Some(saliency) = &pipeline.saliency {
        return ranking::rank(&**saliency, &behaviours, &budget, &protected);
    }
    progress.begin("clustering experts", behaviours.len() as u64, "layers");
    let distances = behaviours
        .par_iter()
        .enumerate()
        .map(|(index, behaviour)| {
            let distances = pipeline
                .similarity
                .distances(behaviour)
                .map_err(Error::stage("similarity", behaviour.layer))?;
            contract("similarity", behaviour.layer, behaviour.experts(), distances.len())?;
            protected.set_apart(index, distances)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let partitions = pipeline
        .clustering
        .cluster(&distances, &budget)
        .map_err(Error::stage("clustering", None))?;
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
        for (behaviour, partition) in behaviours.iter().zip(&partitions) {
            let least = min_per_layer.min(behaviour.experts());
            if partition.len() < least {
                contract("clustering", behaviour.layer, least, partition.len())?;
            }
        }
    }
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
            if pipeline.selector.reads_experts(&open.clusters) {
                return Ok(open);
            }
            select(checkpoint, behaviour.router, open, pipeline)
        })
        .collect()
}

pub(crate) fn contract(
    stage: &'static str,
    layer: usize,
    expected: usize,
    got: usize,
) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Contract {
        stage,
        layer,
        problem: format!("expected {expected} experts, got {got}"),
    })
}

fn unstructured_stage(
    spec: &ModelSpec,
    layers: &[LayerPlan],
    recipe: &Recipe,
    pipeline: &Pipeline,
) -> Result<Option<UnstructuredPlan>, Error> {
    let before = ParameterCounts::of(spec).linears;
    let after = ParameterCounts::of(&pruned_spec(spec, layers)).linears;
    let ratio = ratio_left(recipe, before, before - after)?;
    let fixed = pipeline.pattern.fixed_ratio().is_some();
    let implied =
        |ratio: Sparsity| 1.0 - (after as f64 / before.max(1) as f64) * (1.0 - ratio.value());
    Ok(ratio.map(|ratio| UnstructuredPlan {
        total_sparsity: if fixed { implied(ratio) } else { recipe.sparsity.value() },
        ratio: ratio.value(),
        layer_ratios: Vec::new(),
        reconstructs: pipeline.reconstructor.is_some(),
        expert_ratios: Vec::new(),
    }))
}

/// The model after the expert stage.
pub(crate) fn pruned_spec(spec: &ModelSpec, layers: &[LayerPlan]) -> ModelSpec {
    let mut pruned = spec.clone();
    for plan in layers {
        if let FeedForward::Moe(moe) = &mut pruned.layers[plan.layer].feed_forward {
            moe.experts = plan.experts_after();
        }
    }
    pruned
}

pub(crate) fn routers(checkpoint: &Checkpoint) -> Result<Vec<Router>, Error> {
    let layers = checkpoint.spec().layers.iter().enumerate();
    layers
        .filter(|(_, spec)| spec.moe().is_some())
        .map(|(layer, _)| Router::read(checkpoint, layer))
        .collect()
}
