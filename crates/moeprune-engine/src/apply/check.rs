//! Whether a plan can be applied to a model.

use std::collections::BTreeSet;

use moeprune_core::{
    ExpertGroups, ExpertRatio, LayerPlan, ModelSpec, MoeSpec, Plan, SameModel, Sparsity,
};

use crate::{
    Error, Model,
    in_codes::check_averages,
    plan::{DIFFERS, PLAN_FORMAT, check_clusters, check_extra, check_survivors},
};

/// Refuses a plan that is not for this model or was edited into nonsense.
pub(crate) fn check_plan(model: &dyn Model, plan: &Plan) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    if plan.format != PLAN_FORMAT {
        return bad(format!("format {} is not {PLAN_FORMAT}; make the plan again", plan.format));
    }
    if model.is_of(&plan.model_fingerprint)? == SameModel::No {
        return bad(format!(
            "it is for another model (fingerprint {}, this model's is {}): {}; make a plan \
             for this model",
            plan.model_fingerprint,
            model.fingerprint()?,
            DIFFERS
        ));
    }
    check_layers(model.spec(), plan)?;
    check_extra(model.spec(), plan).map_err(Error::Plan)?;
    check_opaque(model.spec(), plan)?;
    plan.layers.iter().try_for_each(|layer| check_averages(model, layer))?;
    check_ratios(model.spec(), plan)
}

/// Experts that are not decoded can only go.
fn check_opaque(spec: &ModelSpec, plan: &Plan) -> Result<(), Error> {
    if plan.unstructured.is_some() && (spec.has_opaque_experts() || spec.undecoded.is_some()) {
        crate::runs::check_runs(spec)?;
    }
    for layer in &plan.layers {
        let opaque = spec.has_opaque_experts();
        let average = layer.survivors.iter().find(|survivor| !survivor.average_of.is_empty());
        if let Some(average) = average.filter(|_| opaque) {
            return Err(Error::Plan(format!(
                "layer {}: expert {} is the average of {:?}, but what is stored of experts is not \
                 decoded, so they cannot be averaged; select one of each cluster",
                layer.layer, average.source, average.average_of
            )));
        }
    }
    Ok(())
}

/// Every layer exists once, and has experts, clusters and survivors as the plan says.
fn check_layers(spec: &ModelSpec, plan: &Plan) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    let mut last = None;
    for layer in &plan.layers {
        let l = layer.layer;
        let Some(moe) = spec.moe_of(l) else {
            return bad(format!("layer {l} does not exist or has no experts"));
        };
        if last.is_some_and(|last| last >= l) {
            return bad(format!("layer {l} comes twice or out of order"));
        }
        last = Some(l);
        if layer.experts_before != moe.experts {
            return bad(format!(
                "layer {l} has {} experts, the plan says {}",
                moe.experts, layer.experts_before
            ));
        }
        let fits = if layer.is_open() { check_clusters(layer) } else { check_survivors(layer) };
        fits.map_err(|problem| Error::Plan(format!("layer {l}: {problem}")))?;
        if layer.experts_after() < moe.top_k {
            return bad(format!(
                "layer {l} keeps {} experts, but every token is routed to {}",
                layer.experts_after(),
                moe.top_k
            ));
        }
        let groups = moe.router.groups().filter(|_| layer.experts_after() != moe.experts);
        if let Some(groups) = groups {
            check_groups(groups, moe, layer)
                .map_err(|problem| Error::Plan(format!("layer {l}: {problem}")))?;
        }
    }
    Ok(())
}

/// Whether the experts that a layer keeps can be routed by groups.
fn check_groups(groups: ExpertGroups, moe: &MoeSpec, layer: &LayerPlan) -> Result<(), String> {
    groups.check_count(layer.experts_after(), moe.top_k)?;
    let kept: Vec<usize> = match layer.is_open() {
        true => layer.clusters.clusters().iter().map(|cluster| cluster[0]).collect(),
        false => layer.survivors.iter().map(|survivor| survivor.source).collect(),
    };
    groups.check_kept(moe.experts, &kept)?;
    let size = moe.experts / groups.count;
    let across = |cluster: &&Vec<usize>| cluster.iter().any(|e| e / size != cluster[0] / size);
    match layer.clusters.clusters().iter().find(across) {
        Some(cluster) => Err(format!("cluster {cluster:?} reaches over two groups of the router")),
        None => Ok(()),
    }
}

/// Ratios are shares, of layers and experts that there are.
fn check_ratios(spec: &ModelSpec, plan: &Plan) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    if let Some(asked) = &plan.unstructured {
        Sparsity::new(asked.ratio)?;
        let (layers, ratios) = (spec.layers.len(), asked.layer_ratios.len());
        if ratios != 0 && ratios != layers {
            return bad(format!(
                "layer_ratios has length {ratios}, expected {layers}, one entry per layer"
            ));
        }
        let mut seen = BTreeSet::new();
        for &ExpertRatio { layer, expert, ratio } in &asked.expert_ratios {
            Sparsity::new(ratio)?;
            let moe = spec.layers.get(layer).and_then(|l| l.moe());
            if moe.is_none_or(|moe| expert >= moe.experts) || !seen.insert((layer, expert)) {
                return bad(format!(
                    "expert_ratios names expert {expert} of layer {layer} twice, or there is none"
                ));
            }
        }
    }
    Ok(())
}
