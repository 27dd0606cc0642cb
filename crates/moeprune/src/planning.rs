//! From a model, and perhaps what it did on calibration text, to a plan.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    ClusteredLayer, ExpertBudget, ExpertWeights, FeedForward, LayerBehaviour, LayerPlan, LinearId,
    MatrixView, MlpProjection, ModelSpec, Observation, ParameterCounts, Partition, Plan, Sparsity,
    StageError, TensorId, TensorSource, UnstructuredPlan, unstructured_ratio,
};
use rayon::prelude::*;

use crate::{
    Error, Pipeline, Progress, Recipe,
    finite::Finite,
    recipe::Budget,
    session::{Record, Session},
};

/// Version of the plan format this crate writes and reads.
pub const PLAN_FORMAT: u32 = 1;

/// Decides which experts go and how sparse the rest becomes. A pure function of its arguments:
/// the same model, observation, recipe and stages give the same plan.
///
/// Reads routers and the members of clusters of three or more experts, nothing else.
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
    plan_in(&mut Session::in_memory(), checkpoint, observation, recipe, pipeline, progress)
}

/// [`plan`] within a run: layers whose survivors were chosen before are not looked at again.
pub(crate) fn plan_in(
    session: &mut Session,
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Plan, Error> {
    let spec = checkpoint.spec();
    let fingerprint = checkpoint.fingerprint()?;
    check_request(spec, recipe)?;
    if let Some(observation) = observation {
        check_observation(observation, spec, &fingerprint)?;
    }
    let layers = expert_stage(session, checkpoint, observation, recipe, pipeline, progress)?;
    let unstructured = unstructured_stage(spec, &layers, recipe)?;
    Ok(Plan {
        format: PLAN_FORMAT,
        tool: concat!("moeprune ", env!("CARGO_PKG_VERSION")).to_owned(),
        model_fingerprint: fingerprint,
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
fn expert_budget(spec: &ModelSpec, recipe: &Recipe) -> Result<Option<ExpertBudget>, Error> {
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

/// Refuses an observation that is not of this model.
pub(crate) fn check_observation(
    observation: &Observation,
    spec: &ModelSpec,
    fingerprint: &str,
) -> Result<(), Error> {
    if observation.model_fingerprint != fingerprint {
        return Err(Error::Request(format!(
            "the observation is of another model (fingerprint {}, this model's is {fingerprint}); \
             observe this model",
            observation.model_fingerprint
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
    Ok(())
}

fn expert_stage(
    session: &mut Session,
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerPlan>, Error> {
    let Some(budget) = expert_budget(checkpoint.spec(), recipe)? else { return Ok(Vec::new()) };
    if observation.is_none() && pipeline.similarity.needs_observation() {
        return Err(Error::Request(
            "this similarity needs an observation: run `moeprune observe` first and pass \
             --observation FILE"
                .into(),
        ));
    }
    let routers = routers(checkpoint)?;
    progress.begin("clustering experts", routers.len() as u64, "layers");
    let behaviours: Vec<LayerBehaviour<'_>> = routers
        .iter()
        .map(|router| {
            Ok(LayerBehaviour {
                layer: router.layer,
                router: MatrixView::new(router.experts, router.hidden, &router.values)?,
                routing: observation.and_then(|o| o.layers[router.layer].routing.as_ref()),
            })
        })
        .collect::<Result<_, Error>>()?;
    let distances = behaviours
        .par_iter()
        .map(|behaviour| {
            let distances = pipeline
                .similarity
                .distances(behaviour)
                .map_err(Error::stage("similarity", behaviour.layer))?;
            contract("similarity", behaviour.layer, behaviour.experts(), distances.len())?;
            Ok(distances)
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

    progress.begin("selecting survivors", behaviours.len() as u64, "layers");
    let mut layers = Vec::with_capacity(behaviours.len());
    for (behaviour, clusters) in behaviours.iter().zip(partitions) {
        let layer = behaviour.layer;
        contract("clustering", layer, behaviour.experts(), clusters.experts())?;
        if let ExpertBudget::Uniform { keep } = budget {
            contract("clustering", layer, keep, clusters.len())?;
        }
        let known = session.planned().find(|p| p.layer == layer && p.clusters == clusters).cloned();
        if let Some(known) = known {
            layers.push(known);
            continue;
        }
        if progress.should_stop() {
            return Err(Error::Stopped);
        }
        let survivors = pipeline
            .selector
            .select(
                &ClusteredLayer {
                    layer,
                    partition: &clusters,
                    router: behaviour.router,
                    tokens: behaviour.routing.map(|r| r.counts.as_slice()),
                },
                &StoredExperts { weights: Finite(checkpoint), layer, experts: behaviour.experts() },
            )
            .map_err(Error::stage("selection", layer))?;
        contract("selection", layer, clusters.len(), survivors.len())?;
        let plan = LayerPlan { layer, experts_before: behaviour.experts(), clusters, survivors };
        check_survivors(&plan).map_err(|problem| Error::Contract {
            stage: "selection",
            layer,
            problem,
        })?;
        session.record(Record::Planned(plan.clone()))?;
        layers.push(plan);
        progress.advance(layers.len() as u64, &format!("layer {layer}"));
    }
    progress.end();
    Ok(layers)
}

fn contract(stage: &'static str, layer: usize, expected: usize, got: usize) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Contract {
        stage,
        layer,
        problem: format!("expected {expected} experts, got {got}"),
    })
}

/// One survivor a cluster, each from its own, ascending.
pub(crate) fn check_survivors(plan: &LayerPlan) -> Result<(), String> {
    if plan.clusters.experts() != plan.experts_before {
        return Err(format!(
            "clusters cover {} experts, the layer has {}",
            plan.clusters.experts(),
            plan.experts_before
        ));
    }
    if plan.survivors.len() != plan.clusters.len() {
        return Err(format!(
            "{} survivors for {} clusters",
            plan.survivors.len(),
            plan.clusters.len()
        ));
    }
    if let Some(pair) = plan.survivors.windows(2).find(|pair| pair[0].source >= pair[1].source) {
        return Err(format!(
            "survivors are not ascending: {} before {}",
            pair[0].source, pair[1].source
        ));
    }
    for cluster in plan.clusters.clusters() {
        let mine = plan.survivors.iter().filter(|s| cluster.contains(&s.source)).count();
        if mine != 1 {
            return Err(format!("cluster {cluster:?} has {mine} survivors"));
        }
    }
    for survivor in &plan.survivors {
        let cluster = plan.clusters.clusters().iter().find(|c| c.contains(&survivor.source));
        if !survivor.average_of.is_empty() && Some(&survivor.average_of) != cluster {
            return Err(format!(
                "expert {} is the average of {:?}, which is not its cluster",
                survivor.source, survivor.average_of
            ));
        }
    }
    Ok(())
}

fn unstructured_stage(
    spec: &ModelSpec,
    layers: &[LayerPlan],
    recipe: &Recipe,
) -> Result<Option<UnstructuredPlan>, Error> {
    let before = ParameterCounts::of(spec).linears;
    let after = ParameterCounts::of(&pruned_spec(spec, layers)).linears;
    let ratio = ratio_left(recipe, before, before - after)?;
    Ok(ratio.map(|ratio| UnstructuredPlan {
        total_sparsity: recipe.sparsity.value(),
        ratio: ratio.value(),
        layer_ratios: Vec::new(),
    }))
}

/// The model after the expert stage.
pub(crate) fn pruned_spec(spec: &ModelSpec, layers: &[LayerPlan]) -> ModelSpec {
    let mut pruned = spec.clone();
    for plan in layers {
        if let FeedForward::Moe(moe) = &mut pruned.layers[plan.layer].feed_forward {
            moe.experts = plan.survivors.len();
        }
    }
    pruned
}

struct Router {
    layer: usize,
    experts: usize,
    hidden: usize,
    values: Vec<f32>,
}

fn routers(checkpoint: &Checkpoint) -> Result<Vec<Router>, Error> {
    let (spec, source) = (checkpoint.spec(), Finite(checkpoint));
    let mut routers = Vec::new();
    for (layer, moe) in spec.layers.iter().enumerate().filter_map(|(l, s)| Some((l, s.moe()?))) {
        let id = TensorId::linear(layer, LinearId::Router);
        let tensor = source.tensor(id).map_err(Error::stage("reading the router", layer))?;
        routers.push(Router {
            layer,
            experts: moe.experts,
            hidden: spec.hidden,
            values: tensor.to_f32()?,
        });
    }
    Ok(routers)
}

/// Reads one expert at a time from the checkpoint.
struct StoredExperts<'a> {
    weights: Finite<'a>,
    layer: usize,
    experts: usize,
}

impl ExpertWeights for StoredExperts<'_> {
    fn parameters(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        if expert >= self.experts {
            return Err(format!("expert {expert} of {} does not exist", self.experts).into());
        }
        // Grown step by step, it would be held twice for a moment.
        let shapes = self.weights.0.spec().linears(self.layer);
        let own = shapes.iter().filter(|shape| shape.id.expert() == Some(expert));
        let total: u64 = own.map(moeprune_core::LinearShape::parameters).sum();
        let mut parameters = Vec::with_capacity(total as usize);
        for projection in MlpProjection::ALL {
            let id = TensorId::linear(self.layer, LinearId::Expert(expert, projection));
            let tensor = self.weights.tensor(id)?;
            let start = parameters.len();
            parameters.resize(start + tensor.elements(), 0.0);
            tensor.decode_f32(0, &mut parameters[start..])?;
        }
        Ok(parameters)
    }
}
