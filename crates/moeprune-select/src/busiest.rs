//! The busiest member of a cluster survives.

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, Partition, StageError, Survivor, SurvivorReason,
};

use crate::{Error, tokens::check};

/// The member that most calibration tokens were routed to survives, the lowest index among equals.
/// No expert is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct Busiest;

impl ExpertSelector for Busiest {
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        _experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        let tokens = check(layer)?.ok_or(Error::NoTokens)?;
        let survivor = |cluster: &Vec<usize>| {
            let most = cluster.iter().map(|&e| tokens[e]).max();
            let busiest: Vec<usize> =
                cluster.iter().copied().filter(|&e| Some(tokens[e]) == most).collect();
            let reason = match (cluster.len(), busiest.len()) {
                (1, _) => SurvivorReason::Alone,
                (_, 1) => SurvivorReason::MoreTokens,
                _ => SurvivorReason::LowestIndex,
            };
            Survivor::kept(busiest[0], reason)
        };
        let mut survivors: Vec<Survivor> =
            layer.partition.clusters().iter().map(survivor).collect();
        survivors.sort_unstable_by_key(|survivor| survivor.source);
        Ok(survivors)
    }

    fn reads_experts(&self, _partition: &Partition) -> bool {
        false
    }

    fn needs_observation(&self) -> bool {
        true
    }
}
