//! The expert stage where experts are ranked, and experts that no criterion may drop.

use moeprune_core::{
    DistanceMatrix, ExpertSaliency, LayerBehaviour, LayerPlan, Partition, Survivor, SurvivorReason,
};
use moeprune_saliency::{SuperExperts, super_experts};
use moeprune_select::least_salient;
use rayon::prelude::*;

use super::{budget::contract, experts::ExpertLayers};
use crate::Error;

/// Drops the least salient experts.
pub(super) fn rank(
    saliency: &dyn ExpertSaliency,
    layers: &ExpertLayers<'_>,
) -> Result<Vec<LayerPlan>, Error> {
    let ExpertLayers { behaviours: layers, budget, protected } = *layers;
    let saliencies = layers
        .par_iter()
        .map(|layer| {
            let saliency =
                saliency.saliency(layer).map_err(Error::stage("saliency", layer.layer))?;
            contract("saliency", layer.layer, layer.experts(), saliency.len())?;
            Ok(saliency)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let dropped = least_salient(&saliencies, &budget, &protected.0)
        .map_err(Error::stage("ranking experts", None))?;
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

/// The super experts of each layer with experts; none, where they are not protected.
pub(crate) struct Protected(Vec<Vec<usize>>);

impl Protected {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn find(layers: &[LayerBehaviour<'_>]) -> Result<Self, Error> {
        super_experts(layers, SuperExperts::default())
            .map(Self)
            .map_err(|e| Error::stage("finding super experts", None)(e.into()))
    }

    fn of(&self, index: usize) -> &[usize] {
        self.0.get(index).map_or(&[], Vec::as_slice)
    }

    fn has(&self, index: usize, expert: usize) -> bool {
        self.of(index).contains(&expert)
    }

    /// Puts a layer's super experts so far from all others that they are grouped last.
    pub(crate) fn set_apart(
        &self,
        index: usize,
        distances: DistanceMatrix,
    ) -> Result<DistanceMatrix, Error> {
        if self.of(index).is_empty() {
            return Ok(distances);
        }
        let farthest = distances.pairs().fold(0.0_f64, |most, (_, _, d)| most.max(d.abs()));
        let apart = 1e3 * (farthest + 1.0);
        Ok(DistanceMatrix::from_fn(distances.len(), |i, j| {
            let far = self.has(index, i) || self.has(index, j);
            if far { apart } else { distances.at(i, j) }
        })?)
    }

    /// Refuses a grouping in which a super expert may be given up for another.
    pub(crate) fn check_alone(
        &self,
        index: usize,
        layer: usize,
        clusters: &Partition,
    ) -> Result<(), Error> {
        for &expert in self.of(index) {
            if clusters.clusters().iter().any(|c| c.len() > 1 && c.contains(&expert)) {
                return Err(Error::Request(format!(
                    "expert {expert} of layer {layer} is protected, but so few experts stay that \
                     it would share a group; lower --expert-sparsity or do not protect super \
                     experts"
                )));
            }
        }
        Ok(())
    }
}
