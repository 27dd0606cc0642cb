//! The member nearest to its cluster's mean survives.

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, Partition, StageError, Survivor, SurvivorReason,
};

use crate::{
    mean_distance::{Bf16, Exact, distances},
    tokens::check,
};

/// Squared distances closer than this, relative to the smaller one, are equal.
///
/// Members at the same distance in exact arithmetic differ by what the sums round off, at most
/// about 1e-13 (see `mean_distance`); a real difference this small decides nothing.
const TIE: f64 = 1e-12;

/// In a layer of more than `merge_when_clusters_at_most` clusters, the member nearest to the
/// cluster's mean survives; in one of no more than that, every cluster is averaged. An expert
/// alone in its cluster stays as it is.
///
/// Distances are between all parameters of the experts. Ties go to the member more calibration
/// tokens were routed to, if they were counted, and then to the lowest index;
/// [`Survivor::reason`] says which rule decided. Both members of a pair are always equally far
/// from its mean, so pairs are decided without reading them.
///
/// Each member of a cluster of three or more is read once, all of them side by side in pieces:
/// 64 MB are in memory at a time, for experts of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct NearestToMean {
    /// κ: a layer with no more clusters than this has them averaged. 0 never averages; `None` is 2, and 0 of
    /// experts that cannot be averaged ([`ExpertSelector::selecting`]).
    pub merge_when_clusters_at_most: Option<usize>,
    /// Arithmetic of means and distances.
    pub precision: Precision,
}

/// Arithmetic of [`NearestToMean`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// f32 weights, f64 sums.
    #[default]
    F64,
    /// As the released STUN code computes: sums, mean, differences and the norm are each rounded
    /// to bf16, and of equal norms the lowest index wins, with any tokens. Norms of 8
    /// significant bits usually tie, so this mostly keeps the lowest index. To reproduce a
    /// reference, not to be preferred.
    ReferenceBf16,
}

impl Default for NearestToMean {
    /// κ = 2 where experts can be averaged, in f64.
    fn default() -> Self {
        Self { merge_when_clusters_at_most: None, precision: Precision::F64 }
    }
}

impl ExpertSelector for NearestToMean {
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        let partition = layer.partition;
        let tokens = check(layer)?;
        let average = partition.len() <= self.kappa();
        let mut survivors = Vec::with_capacity(partition.len());
        for cluster in partition.clusters() {
            survivors.push(match cluster[..] {
                [alone] => Survivor::kept(alone, SurvivorReason::Alone),
                [_, ..] if average => Survivor::average(cluster.clone(), Vec::new()),
                _ => self.representative(cluster, tokens, experts)?,
            });
        }
        survivors.sort_unstable_by_key(|survivor| survivor.source);
        Ok(survivors)
    }

    fn reads_experts(&self, partition: &Partition) -> bool {
        // The most members among which one is chosen without reading any.
        let decided_unread = match self.precision {
            Precision::F64 => 2,
            Precision::ReferenceBf16 => 1,
        };
        partition.len() > self.kappa()
            && partition.clusters().iter().any(|cluster| cluster.len() > decided_unread)
    }

    fn averages(&self, partition: &Partition) -> bool {
        let grouped = || partition.clusters().iter().any(|cluster| cluster.len() > 1);
        partition.len() <= self.kappa() && grouped()
    }

    fn selecting(&self) -> Option<Box<dyn ExpertSelector>> {
        let by_default = self.merge_when_clusters_at_most.is_none();
        by_default.then(|| {
            Box::new(Self { merge_when_clusters_at_most: Some(0), ..*self })
                as Box<dyn ExpertSelector>
        })
    }
}

/// κ where nothing says another, of experts that can be averaged.
const KAPPA: usize = 2;

impl NearestToMean {
    fn kappa(&self) -> usize {
        self.merge_when_clusters_at_most.unwrap_or(KAPPA)
    }

    fn representative(
        &self,
        cluster: &[usize],
        tokens: Option<&[u64]>,
        experts: &dyn ExpertWeights,
    ) -> Result<Survivor, StageError> {
        let (nearest, tokens) = match self.precision {
            Precision::F64 if cluster.len() == 2 => (cluster.to_vec(), tokens),
            Precision::F64 => {
                (nearest(cluster, &distances::<Exact>(cluster, experts)?, TIE), tokens)
            }
            Precision::ReferenceBf16 => {
                (nearest(cluster, &distances::<Bf16>(cluster, experts)?, 0.0), None)
            }
        };
        Ok(break_tie(&nearest, tokens))
    }
}

/// The members whose distance exceeds the least by no more than a share `tie` of it.
fn nearest(cluster: &[usize], distances: &[f64], tie: f64) -> Vec<usize> {
    let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let near = |&(_, &distance): &(&usize, &f64)| distance <= least * (1.0 + tie);
    cluster.iter().zip(distances).filter(near).map(|(&expert, _)| expert).collect()
}

/// One of several equally near members, which are ascending and not none.
fn break_tie(nearest: &[usize], tokens: Option<&[u64]>) -> Survivor {
    if let [only] = nearest[..] {
        return Survivor::kept(only, SurvivorReason::NearestToMean);
    }
    let Some(tokens) = tokens else {
        return Survivor::kept(nearest[0], SurvivorReason::LowestIndex);
    };
    let most = nearest.iter().map(|&expert| tokens[expert]).max();
    let busiest: Vec<usize> =
        nearest.iter().copied().filter(|&expert| Some(tokens[expert]) == most).collect();
    let one = busiest.len() == 1;
    Survivor::kept(
        busiest[0],
        if one { SurvivorReason::MoreTokens } else { SurvivorReason::LowestIndex },
    )
}
