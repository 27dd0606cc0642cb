//! Where the experts of a pruned model come from.

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{LinearId, Plan, TensorBytes, TensorId};

use super::{candidate::kept_or_average, compare::MayZero, hint::Hint};
use crate::{Checkpoint, Error, select_rows};

/// What an expert of the pruned model is made of, in indices of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// One expert, bit for bit.
    Kept(usize),
    /// The average of several.
    Average(Vec<usize>),
    /// Not known.
    Unknown,
}

/// The experts' origins by layer.
#[derive(Debug)]
pub(super) struct Origins {
    layers: BTreeMap<usize, Vec<Origin>>,
    wrong: Option<String>,
}

impl Origins {
    /// As a plan says. Layers it does not name keep all of their experts.
    pub(super) fn planned(source: &Checkpoint, pruned: &Checkpoint, plan: &Plan) -> Self {
        let mut origins = Self { layers: BTreeMap::new(), wrong: None };
        for (layer, spec) in pruned.spec().layers.iter().enumerate() {
            let Some(moe) = spec.moe() else { continue };
            let before =
                source.spec().layers.get(layer).and_then(|l| l.moe()).map_or(0, |m| m.experts);
            let of_plan = plan.layers.iter().find(|p| p.layer == layer);
            let mut experts: Vec<Origin> = match of_plan {
                None => (0..before).map(Origin::Kept).collect(),
                Some(plan) => plan
                    .survivors
                    .iter()
                    .map(|survivor| match survivor.average_of.as_slice() {
                        [] => Origin::Kept(survivor.source),
                        members => Origin::Average(members.to_vec()),
                    })
                    .collect(),
            };
            if experts.len() != moe.experts {
                origins.wrong.get_or_insert_with(|| {
                    format!(
                        "layer {layer} has {} experts, the plan keeps {}",
                        moe.experts,
                        experts.len()
                    )
                });
                experts.resize(moe.experts, Origin::Unknown);
            }
            let exists = |e: &usize| *e < before;
            for expert in &mut experts {
                let known = match expert {
                    Origin::Kept(e) => exists(e),
                    Origin::Average(members) => members.iter().all(exists),
                    Origin::Unknown => true,
                };
                if !known {
                    *expert = Origin::Unknown;
                }
            }
            origins.layers.insert(layer, experts);
        }
        origins
    }

    /// As a report says. In layers it does not name, by router rows that are equal bit for bit.
    pub(super) fn unplanned(
        source: &Checkpoint,
        pruned: &Checkpoint,
        hint: Option<&Hint>,
        may_zero: MayZero,
    ) -> Result<Self, Error> {
        let mut origins = Self { layers: BTreeMap::new(), wrong: None };
        for (layer, spec) in pruned.spec().layers.iter().enumerate() {
            let Some(moe) = spec.moe() else { continue };
            let before =
                source.spec().layers.get(layer).and_then(|l| l.moe()).map_or(0, |m| m.experts);
            let (experts, wrong) = match hint.and_then(|hint| hint.layer(layer)) {
                None => matched(source, pruned, layer)?,
                Some((kept, clusters)) => match check_hint(kept, clusters, moe.experts, before) {
                    Err(wrong) => (vec![Origin::Unknown; moe.experts], Some(wrong)),
                    Ok(()) => {
                        let mut experts = Vec::new();
                        for (expert, &from) in kept.iter().enumerate() {
                            let cluster = clusters.iter().find(|cluster| cluster.contains(&from));
                            experts.push(match cluster {
                                Some(cluster) if cluster.len() > 1 => {
                                    let at = (layer, expert);
                                    kept_or_average(source, pruned, at, from, cluster, may_zero)?
                                }
                                _ => Origin::Kept(from),
                            });
                        }
                        (experts, None)
                    }
                },
            };
            if let Some(wrong) = wrong {
                origins.wrong.get_or_insert_with(|| format!("layer {layer}: {wrong}"));
            }
            origins.layers.insert(layer, experts);
        }
        Ok(origins)
    }

    pub(super) fn of(&self, layer: usize, expert: usize) -> &Origin {
        self.layers.get(&layer).and_then(|l| l.get(expert)).unwrap_or(&Origin::Unknown)
    }

    pub(super) fn of_layer(&self, layer: usize) -> &[Origin] {
        self.layers.get(&layer).map_or(&[], Vec::as_slice)
    }

    pub(super) fn check(&self) -> Result<String, String> {
        let all = || self.layers.values().flatten();
        let unknown = all().filter(|o| **o == Origin::Unknown).count();
        match &self.wrong {
            Some(wrong) => Err(wrong.clone()),
            None if unknown > 0 => Err(format!("{unknown} experts come from nowhere known")),
            None => {
                let averages = all().filter(|o| matches!(o, Origin::Average(_))).count();
                Ok(format!("{} experts, {averages} of them averages", all().count()))
            }
        }
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
        return Err(format!("it has {experts} experts, its report names {}", kept.len()));
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
