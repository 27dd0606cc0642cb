//! The expert stage where experts are ranked.

use moeprune_core::{
    ExpertSaliency, LayerBehaviour, LayerPlan, Partition, Survivor, SurvivorReason,
};
use moeprune_select::least_salient;
use rayon::prelude::*;

use super::{budget::contract, expert_layers::ExpertLayers};
use crate::Error;

/// Drops the least salient experts.
pub(super) fn rank(
    saliency: &dyn ExpertSaliency,
    layers: &ExpertLayers<'_>,
) -> Result<Vec<LayerPlan>, Error> {
    let ExpertLayers { behaviours: layers, budget, blocks, protected } = *layers;
    let saliencies = layers
        .par_iter()
        .map(|layer| {
            let saliency =
                saliency.saliency(layer).map_err(Error::stage("saliency", layer.layer))?;
            contract("saliency", layer.layer, layer.experts(), saliency.len())?;
            Ok(saliency)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let experts: Vec<usize> = layers.iter().map(LayerBehaviour::experts).collect();
    let kept_anyway = blocks.experts(&protected.0, &experts);
    let dropped = least_salient(&blocks.values(saliencies), &blocks.budget(budget), &kept_anyway)
        .map_err(Error::stage("ranking experts", None))?;
    let dropped = blocks.joined(&dropped, &experts);
    let plans = layers.iter().zip(dropped).enumerate();
    Ok(plans
        .map(|(index, (layer, dropped))| {
            let reason = |expert: &usize| match protected.has(index, *expert) {
                true => SurvivorReason::Protected,
                false => SurvivorReason::Salient,
            };
            without(layer.layer, layer.experts(), dropped, reason)
        })
        .collect())
}

/// The plan of a layer that loses these experts, ascending, and keeps the others as they are.
pub(crate) fn without(
    layer: usize,
    experts: usize,
    dropped: Vec<usize>,
    reason: impl Fn(&usize) -> SurvivorReason,
) -> LayerPlan {
    let kept = (0..experts).filter(|expert| !dropped.contains(expert));
    LayerPlan {
        layer,
        experts_before: experts,
        clusters: Partition::singletons(experts),
        survivors: kept.map(|expert| Survivor::kept(expert, reason(&expert))).collect(),
        dropped,
        tokens: Vec::new(),
    }
}
