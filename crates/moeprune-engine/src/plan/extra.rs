//! Layers behind the decoder's: how many experts they keep, and which.
//!
//! Engines build them with as many experts as the config says of the decoder's layers. No activations
//! are known of them, so they are cut by router distance.

use moeprune_cluster::Agglomerative;
use moeprune_core::{
    ExpertBudget, ExpertClustering, ExpertSimilarity, ExtraPolicy, LayerPlan, MatrixView,
    ModelSpec, MoeSpec, Partition, Plan, Survivor, SurvivorReason, plural,
};
use moeprune_similarity::RouterDistance;

use super::{Router, blocks::Blocks};
use crate::{Error, Model, Remedy};

/// What becomes of the layers behind the decoder's under the request `asked`; `None` if the model has
/// none. Where there are no experts to prune, they are kept. Of layers that the config counts and that
/// are not stored, that count can be dropped.
pub(super) fn policy(spec: &ModelSpec, asked: Option<ExtraPolicy>) -> Option<ExtraPolicy> {
    let extra = spec.extra.as_ref()?;
    let policy = asked.unwrap_or(extra.policy);
    if !extra.is_stored && policy != ExtraPolicy::Drop {
        return None;
    }
    let prunes = policy == ExtraPolicy::Prune && spec.extra_moe().next().is_none();
    Some(if prunes { ExtraPolicy::Keep } else { policy })
}

/// The plans of the layers behind the decoder's that lose experts, once the decoder's are decided. Those
/// that `decided` has an entry for are decided too.
pub(super) fn plan(
    model: &dyn Model,
    decided: &[LayerPlan],
    policy: ExtraPolicy,
) -> Result<Vec<LayerPlan>, Error> {
    let spec = model.spec();
    let mut plans = Vec::new();
    for (layer, moe) in spec.extra_moe().filter(|_| policy == ExtraPolicy::Prune) {
        let keep = most_kept(&spec.without_experts(decided));
        if moe.experts > keep && decided.iter().all(|plan| plan.layer != layer) {
            plans.push(cut(model, layer, moe, keep)?);
        }
    }
    Ok(plans)
}

/// The largest number of experts that a decoder layer has.
fn most_kept(spec: &ModelSpec) -> usize {
    spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).max().unwrap_or(0)
}

/// The plan of a layer that keeps so many experts, by router distance within the router's groups.
fn cut(model: &dyn Model, layer: usize, moe: &MoeSpec, keep: usize) -> Result<LayerPlan, Error> {
    let spec = model.spec();
    let groups = moe.router.groups();
    if let Some(problem) = groups.and_then(|groups| groups.check_count(keep, moe.top_k).err()) {
        let problem = format!("{}, behind the decoder's: {problem}", spec.layer_name(layer));
        return Err(Error::refused(problem, Remedy::DropExtra));
    }
    let router = Router::read(model, layer)?;
    let behaviour = router.behaviour()?;
    let distances = RouterDistance::default()
        .distances(&behaviour)
        .map_err(Error::stage("similarity", layer))?;
    let blocks = Blocks::new(groups.map_or(1, |groups| groups.count));
    let budget = blocks.budget(ExpertBudget::Uniform { keep });
    let clusters = Agglomerative::default()
        .cluster(&blocks.distances(vec![distances])?, &budget)
        .map_err(Error::stage("clustering", layer))?;
    let clusters = blocks.partitions(clusters)?.remove(0);
    Ok(LayerPlan {
        layer,
        experts_before: moe.experts,
        survivors: survivors(&clusters, behaviour.router),
        clusters,
        dropped: Vec::new(),
        tokens: Vec::new(),
    })
}

/// Of each cluster the expert whose router row is nearest to the mean of the cluster's rows, ascending.
/// Of two, and of equally near ones, the first.
fn survivors(clusters: &Partition, router: MatrixView<'_>) -> Vec<Survivor> {
    let mut survivors: Vec<Survivor> = clusters
        .clusters()
        .iter()
        .map(|cluster| match cluster[..] {
            [alone] => Survivor::kept(alone, SurvivorReason::Alone),
            [first, _] => Survivor::kept(first, SurvivorReason::LowestIndex),
            _ => Survivor::kept(nearest_to_mean(cluster, router), SurvivorReason::NearestToMean),
        })
        .collect();
    survivors.sort_by_key(|survivor| survivor.source);
    survivors
}

fn nearest_to_mean(cluster: &[usize], router: MatrixView<'_>) -> usize {
    let mut mean = vec![0.0; router.cols()];
    for &expert in cluster {
        for (sum, &value) in mean.iter_mut().zip(router.row(expert)) {
            *sum += f64::from(value) / cluster.len() as f64;
        }
    }
    let distance = |expert: usize| -> f64 {
        let row = router.row(expert).iter().zip(&mean);
        row.map(|(&value, mean)| (f64::from(value) - mean).powi(2)).sum()
    };
    let nearer = |best: (f64, usize), next: (f64, usize)| if next.0 < best.0 { next } else { best };
    let all = cluster.iter().map(|&expert| (distance(expert), expert));
    all.reduce(nearer).map_or(0, |(_, expert)| expert)
}

/// Refuses layers behind the decoder's that are to be kept and that engines could not load then, of a
/// model that keeps so many experts in each decoder layer.
pub(super) fn check_loadable(
    spec: &ModelSpec,
    policy: Option<ExtraPolicy>,
    keep: usize,
) -> Result<(), Error> {
    if policy != Some(ExtraPolicy::Keep) {
        return Ok(());
    }
    let too_many = spec.extra_moe().find(|(_, moe)| moe.experts > keep);
    too_many.map_or(Ok(()), |(layer, moe)| {
        Err(Error::refused(
            not_loadable(&spec.layer_name(layer), moe.experts, keep),
            Remedy::PruneOrDropExtra,
        ))
    })
}

/// Refuses layers behind the decoder's that a keep-list has lose experts, and that are not to be pruned.
pub(super) fn check_listed(
    spec: &ModelSpec,
    policy: Option<ExtraPolicy>,
    layers: &[LayerPlan],
) -> Result<(), Error> {
    let becomes = match policy {
        Some(ExtraPolicy::Drop) => "dropped",
        Some(ExtraPolicy::Keep) => "kept as it is",
        Some(ExtraPolicy::Prune) | None => return Ok(()),
    };
    let named = layers.iter().find(|entry| entry.layer >= spec.layers.len());
    named.map_or(Ok(()), |LayerPlan { layer, .. }| {
        Err(Error::Request(format!(
            "the keep-list: {} is behind the decoder's and is to be {becomes}; leave it out of the list",
            spec.layer_name(*layer)
        )))
    })
}

fn not_loadable(layer: &str, experts: usize, keep: usize) -> String {
    format!(
        "{layer}, behind the decoder's, would have {} and the others {keep}, but engines build all of them \
         with the one number in config.json",
        plural(experts, "expert")
    )
}

/// Refuses a plan that has just been made, as [`check_plan`].
pub(super) fn check_made(spec: &ModelSpec, plan: &Plan) -> Result<(), Error> {
    check_plan(spec, plan).map_err(|problem| Error::refused(problem, Remedy::PruneOrDropExtra))
}

/// Refuses a plan that says one thing of the layers behind the decoder's and does another, or after
/// which engines could not load them. A plan that says nothing of them is not refused.
pub(crate) fn check_plan(spec: &ModelSpec, plan: &Plan) -> Result<(), String> {
    let policy = spec.policy_of(plan);
    let entry = plan.layers.iter().find(|entry| entry.layer >= spec.layers.len());
    if let Some(entry) = entry.filter(|_| policy != ExtraPolicy::Prune) {
        return Err(format!(
            "{} is behind the decoder's and would lose experts, but such layers are to be {}",
            spec.layer_name(entry.layer),
            if policy == ExtraPolicy::Drop { "dropped" } else { "kept" }
        ));
    }
    let after = spec.after(plan);
    let keep = most_kept(&after);
    if plan.extra.is_none() && entry.is_none() || keep == most_kept(spec) {
        return Ok(());
    }
    let is_planned = |layer| plan.layers.iter().any(|entry| entry.layer == layer);
    let wrong = |&(layer, moe): &(usize, &MoeSpec)| {
        moe.experts > keep || moe.experts < keep && is_planned(layer)
    };
    let wrong = after.extra_moe().find(wrong);
    wrong.map_or(Ok(()), |(layer, moe)| {
        Err(not_loadable(&spec.layer_name(layer), moe.experts, keep))
    })
}

/// What is to be said of layers behind the decoder's that a plan keeps while experts of the decoder go.
pub(crate) fn note_of_kept(spec: &ModelSpec, plan: &Plan) -> Option<String> {
    let extra = spec.extra.as_ref()?;
    let keep = most_kept(&spec.without_experts(&plan.layers));
    if spec.policy_of(plan) != ExtraPolicy::Keep {
        return None;
    }
    if !extra.is_stored {
        return Some(
            "note: config.json counts layers behind the decoder's that are not stored, and still does; \
             dropped, it counts none"
                .to_owned(),
        );
    }
    if keep == most_kept(spec) {
        return None;
    }
    if extra.layers.is_empty() {
        return Some(
            "note: the layers behind the decoder's are copied as they are; nothing in them is known, \
             so if they have experts, an engine cannot load them"
                .to_owned(),
        );
    }
    let (layer, moe) = spec.extra_moe().find(|(_, moe)| moe.experts > keep)?;
    Some(format!(
        "note: {}, behind the decoder's, is copied with all its {} experts; an engine that \
         builds it with as many as the config now says cannot load it",
        spec.layer_name(layer),
        moe.experts
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(clusters: &[&[usize]], rows: &[f32], expected: &[usize]) {
        let clusters = clusters.iter().map(|cluster| cluster.to_vec()).collect();
        let clusters = Partition::new(rows.len() / 2, clusters).unwrap();
        let router = MatrixView::new(rows.len() / 2, 2, rows).unwrap();
        let kept: Vec<usize> = survivors(&clusters, router).iter().map(|s| s.source).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_row_nearest_to_the_mean_survives() {
        let rows = [0.0, 0.0, 9.0, 0.0, 4.0, 0.0, 50.0, 50.0];
        check(&[&[0, 1, 2], &[3]], &rows, &[2, 3]);
        check(&[&[0, 3], &[1, 2]], &rows, &[0, 1]);
        check(&[&[0, 1], &[2], &[3]], &rows, &[0, 2, 3]);
        // All equally near.
        check(&[&[0, 1, 2, 3]], &[1.0; 8], &[0]);
    }
}
