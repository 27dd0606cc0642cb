//! Where the experts of a pruned model come from.

use std::collections::BTreeMap;

use moeprune_core::{LinearId, Plan, TensorId};

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

    /// By router rows that are equal bit for bit. Of several equal rows of the source the first
    /// that was not taken counts.
    pub(super) fn matched(source: &Checkpoint, pruned: &Checkpoint) -> Result<Self, Error> {
        let mut origins = Self { layers: BTreeMap::new(), wrong: None };
        for (layer, spec) in pruned.spec().layers.iter().enumerate() {
            if spec.moe().is_none() {
                continue;
            }
            let name = pruned.name_of(TensorId::linear(layer, LinearId::Router))?;
            let (old, new) = (source.tensor_by_name(&name)?, pruned.tensor_by_name(&name)?);
            let rows = |of: &moeprune_core::TensorBytes<'_>| {
                let count = of.shape().first().copied().unwrap_or_default();
                (0..count)
                    .map(|row| Ok(select_rows(of, &[row])?.into_bytes()))
                    .collect::<Result<Vec<_>, Error>>()
            };
            let old = rows(&old)?;
            let mut taken = vec![false; old.len()];
            let mut experts = Vec::new();
            for (e, row) in rows(&new)?.iter().enumerate() {
                let from = (0..old.len()).find(|&o| !taken[o] && old[o] == *row);
                experts.push(from.map_or(Origin::Unknown, Origin::Kept));
                match from {
                    Some(from) => taken[from] = true,
                    None => {
                        origins.wrong.get_or_insert_with(|| {
                            format!(
                                "the router row of expert {e} in layer {layer} is none of the \
                             source's; if experts were averaged, give the plan"
                            )
                        });
                    }
                }
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
