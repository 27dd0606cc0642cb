//! What the ways of choosing experts work on, and experts that none of them may drop.

use moeprune_core::{DistanceMatrix, ExpertBudget, LayerBehaviour, Partition};
use moeprune_saliency::{SuperExperts, super_experts};

use super::blocks::Blocks;
use crate::{Error, Remedy};

/// The layers with experts, how many experts stay, and which in any case.
#[derive(Clone, Copy)]
pub(super) struct ExpertLayers<'a> {
    pub(super) behaviours: &'a [LayerBehaviour<'a>],
    pub(super) budget: ExpertBudget,
    pub(super) blocks: Blocks,
    pub(super) protected: &'a Protected,
}

/// The super experts of each layer with experts; none, where they are not protected.
pub(crate) struct Protected(pub(super) Vec<Vec<usize>>);

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

    pub(super) fn has(&self, index: usize, expert: usize) -> bool {
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
                let problem = format!(
                    "expert {expert} of layer {layer} is protected, but so few experts stay that \
                     it would share a group"
                );
                return Err(Error::refused(problem, Remedy::FewerExpertsOrNoProtection));
            }
        }
        Ok(())
    }
}
