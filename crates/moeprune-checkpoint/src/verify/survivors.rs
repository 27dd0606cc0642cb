//! Finding out where the experts of a pruned model come from: from a plan, a report, or router rows.

use std::collections::BTreeSet;

use moeprune_core::{LayerPlan, LinearId, Plan, Provenance, TensorBytes, TensorId, plural};

use super::{
    candidate::Candidate,
    compare::MayZero,
    origin::{Average, Origin, Origins},
};
use crate::{Checkpoint, Error, select_rows};

/// The origins as a plan says. Layers it does not name keep all of their experts; what it leaves open
/// is as a report says, or the router rows, and must be a choice that the plan allows.
pub(super) fn planned(
    source: &Checkpoint,
    pruned: &Checkpoint,
    plan: &Plan,
    hint: Option<&Provenance>,
    may_zero: MayZero<'_>,
) -> Result<Origins, Error> {
    let mut origins = Origins::default();
    for (layer, experts, before) in moe_layers(source, pruned) {
        let of_plan = plan.layers.iter().find(|p| p.layer == layer);
        let (mut origin, mut wrong) = match of_plan {
            None => ((0..before).map(Origin::Kept).collect(), None),
            Some(open) if open.is_open() => {
                let (origin, wrong) = found(source, pruned, layer, hint, may_zero)?;
                let wrong = wrong.or_else(|| check_choice(&origin, open).err());
                (origin, wrong)
            }
            Some(plan) => (plan.survivors.iter().map(Origin::of).collect::<Vec<_>>(), None),
        };
        let planned = match of_plan {
            None => before,
            Some(open) if open.is_open() => open.experts_after(),
            Some(plan) => plan.survivors.len(),
        };
        if experts != planned {
            wrong = Some(format!("it has {}, the plan keeps {planned}", plural(experts, "expert")));
        }
        origin.resize(experts, Origin::Unknown);
        let exists = |e: &usize| *e < before;
        for expert in &mut origin {
            let known = match expert {
                Origin::Kept(e) => exists(e),
                Origin::Average(Average { members, weights }) => {
                    members.iter().all(exists)
                        && (weights.is_empty() || weights.len() == members.len())
                }
                Origin::Unknown => true,
            };
            if !known {
                *expert = Origin::Unknown;
            }
        }
        origins.add(layer, origin, wrong);
    }
    Ok(origins)
}

/// The origins as a report says. In layers it does not name, by router rows that are equal bit for
/// bit.
pub(super) fn unplanned(
    source: &Checkpoint,
    pruned: &Checkpoint,
    hint: Option<&Provenance>,
    may_zero: MayZero<'_>,
) -> Result<Origins, Error> {
    let mut origins = Origins::default();
    for (layer, ..) in moe_layers(source, pruned) {
        let (experts, wrong) = found(source, pruned, layer, hint, may_zero)?;
        origins.add(layer, experts, wrong);
    }
    Ok(origins)
}

/// Layers with experts, of the decoder's and behind them: their index, how many experts they have, and how many in the source.
fn moe_layers<'a>(
    source: &'a Checkpoint,
    pruned: &'a Checkpoint,
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    let experts = |of: &Checkpoint, layer: usize| of.spec().moe_of(layer).map(|moe| moe.experts);
    (0..pruned.spec().extra_layers().end).filter_map(move |layer| {
        Some((layer, experts(pruned, layer)?, experts(source, layer).unwrap_or(0)))
    })
}

/// The experts of a layer as a report says, or by their router rows, and what is wrong with them.
fn found(
    source: &Checkpoint,
    pruned: &Checkpoint,
    layer: usize,
    hint: Option<&Provenance>,
    may_zero: MayZero<'_>,
) -> Result<(Vec<Origin>, Option<String>), Error> {
    let experts = |of: &Checkpoint| of.spec().moe_of(layer).map_or(0, |moe| moe.experts);
    let (after, before) = (experts(pruned), experts(source));
    let Some((kept, clusters)) = hint.and_then(|hint| hint.layer(layer)) else {
        return matched(source, pruned, layer);
    };
    if let Err(wrong) = check_hint(kept, clusters, after, before) {
        return Ok((vec![Origin::Unknown; after], Some(wrong)));
    }
    let mut experts = Vec::with_capacity(after);
    for (expert, &from) in kept.iter().enumerate() {
        let merged = hint.and_then(|hint| hint.merged(layer, from));
        let cluster = clusters.iter().find(|cluster| cluster.contains(&from));
        experts.push(match cluster {
            Some(cluster) if merged.is_some_and(|s| s.average_of == *cluster) => {
                merged.map_or(Origin::Unknown, Origin::of)
            }
            Some(cluster) if cluster.len() > 1 => {
                let may_zero = may_zero.in_layer(source, layer);
                let candidate = Candidate { source, pruned, layer, expert, may_zero };
                candidate.kept_or_average(from, cluster)?
            }
            _ => Origin::Kept(from),
        });
    }
    Ok((experts, None))
}

/// Whether experts are one of each cluster, or its average, in the order of a plan.
fn check_choice(experts: &[Origin], plan: &LayerPlan) -> Result<(), String> {
    let mut last = None;
    for origin in experts {
        let (first, members) = match origin {
            Origin::Kept(expert) => (*expert, None),
            Origin::Average(Average { members, .. }) => {
                (members.first().copied().unwrap_or_default(), Some(members))
            }
            Origin::Unknown => continue,
        };
        let cluster = plan.clusters.clusters().iter().find(|cluster| cluster.contains(&first));
        if members.is_some_and(|members| cluster != Some(members)) {
            return Err(format!("an average of {members:?}, which is no cluster of the plan"));
        }
        if last.is_some_and(|last| last >= first) {
            return Err(format!("expert {first} comes out of the order of a plan"));
        }
        last = Some(first);
    }
    let of_cluster = |cluster: &[usize]| {
        let stands = |origin: &&Origin| match origin {
            Origin::Kept(expert) => cluster.contains(expert),
            Origin::Average(Average { members, .. }) => {
                members.first().is_some_and(|m| cluster.contains(m))
            }
            Origin::Unknown => false,
        };
        experts.iter().filter(stands).count()
    };
    match plan.clusters.clusters().iter().find(|cluster| of_cluster(cluster) > 1) {
        Some(cluster) => Err(format!("several experts of the plan's cluster {cluster:?} are kept")),
        None => Ok(()),
    }
}

/// Whether what a report says about a layer can be true of one with this many experts.
fn check_hint(
    kept: &[usize],
    clusters: &[Vec<usize>],
    experts: usize,
    before: usize,
) -> Result<(), String> {
    if kept.len() != experts {
        let has = plural(experts, "expert");
        return Err(format!("it has {has}, its report names {}", kept.len()));
    }
    let mut unique = BTreeSet::new();
    if let Some(e) = kept.iter().find(|e| **e >= before || !unique.insert(**e)) {
        return Err(format!("its report keeps expert {e} of {before} twice or out of range"));
    }
    let mut clustered = BTreeSet::new();
    let mut members = clusters.iter().flatten();
    if let Some(e) = members.find(|e| **e >= before || !clustered.insert(**e)) {
        return Err(format!("its report clusters expert {e} of {before} twice or out of range"));
    }
    let survivors = |cluster: &&Vec<usize>| cluster.iter().filter(|e| unique.contains(e)).count();
    match clusters.iter().find(|cluster| survivors(cluster) > 1) {
        Some(cluster) => Err(format!("its report keeps several experts of cluster {cluster:?}")),
        None => Ok(()),
    }
}

/// The experts of a layer by their router rows, and what is wrong with them. Of several equal rows
/// of the source the first that was not taken counts.
fn matched(
    source: &Checkpoint,
    pruned: &Checkpoint,
    layer: usize,
) -> Result<(Vec<Origin>, Option<String>), Error> {
    let name = pruned.name_of(TensorId::linear(layer, LinearId::Router))?;
    let (old, new) = (source.tensor_by_name(&name)?, pruned.tensor_by_name(&name)?);
    let rows = |of: &TensorBytes<'_>| {
        let count = of.shape().first().copied().unwrap_or_default();
        (0..count)
            .map(|row| Ok(select_rows(of, &[row])?.into_bytes()))
            .collect::<Result<Vec<_>, Error>>()
    };
    let old = rows(&old)?;
    let mut taken = vec![false; old.len()];
    let (mut experts, mut wrong) = (Vec::new(), None);
    for (e, row) in rows(&new)?.iter().enumerate() {
        let from = (0..old.len()).find(|&o| !taken[o] && old[o] == *row);
        experts.push(from.map_or(Origin::Unknown, Origin::Kept));
        match from {
            Some(from) => taken[from] = true,
            None => {
                wrong.get_or_insert_with(|| {
                    format!(
                        "the router row of expert {e} is none of the source's; if experts were \
                         averaged or routers pruned, give the plan"
                    )
                });
            }
        }
    }
    Ok((experts, wrong))
}
