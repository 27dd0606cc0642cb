//! Every cluster is merged.

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, Partition, StageError, Survivor, SurvivorReason,
};

use crate::{Error, tokens::check};

/// Every cluster becomes the average of its members, weights and router rows alike; an expert alone
/// in its cluster stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MergeAll {
    /// Members count the same.
    #[default]
    Plain,
    /// A member counts as often as calibration tokens were routed to it, as in HC-SMoE (arXiv
    /// 2410.08589). Where no member was reached, all count the same. Needs an observation.
    ByTokens,
}

impl ExpertSelector for MergeAll {
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        _experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        let tokens = check(layer)?;
        if tokens.is_none() && *self == Self::ByTokens {
            return Err(Error::NoTokens.into());
        }
        let merge = |cluster: &Vec<usize>| match (&cluster[..], self) {
            (&[alone], _) => Survivor::kept(alone, SurvivorReason::Alone),
            (_, Self::Plain) => Survivor::average(cluster.clone(), Vec::new()),
            (members, Self::ByTokens) => {
                let mut weights: Vec<u64> =
                    members.iter().filter_map(|&e| Some(tokens?[e])).collect();
                if weights.iter().all(|&weight| weight == 0) {
                    weights.clear();
                }
                Survivor::average(cluster.clone(), weights)
            }
        };
        Ok(layer.partition.clusters().iter().map(merge).collect())
    }

    fn reads_experts(&self, _partition: &Partition) -> bool {
        false
    }

    fn averages(&self, partition: &Partition) -> bool {
        partition.clusters().iter().any(|cluster| cluster.len() > 1)
    }

    fn needs_observation(&self) -> bool {
        *self == Self::ByTokens
    }
}
