//! The reference linkage under a budget.

use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition, StageError};

use crate::{Error, reference::Greedy};

/// The greedy linkage of the released STUN code, [`reference_clusters`](crate::reference_clusters),
/// under a budget.
///
/// A **global** budget searches one threshold for all layers; a **uniform** one searches one for
/// each layer.
///
/// # How the count comes out exactly
///
/// The number of clusters jumps where a threshold admits several merges at once, and does not
/// always fall as the threshold rises, so there may be no threshold with the right count, and
/// bisection alone cannot be trusted to find one. Two facts make it exact:
///
/// * Under any one threshold, pairs are visited one at a time and each merges at most two
///   clusters. A run that ends with too few clusters has therefore had every count on the way,
///   and may be stopped at the right one.
/// * Above all distances nothing is rejected, so a run gets down to the minimum of every layer.
///
/// So the distances that occur are bisected for a neighbouring pair of which the lower one, as a
/// threshold, leaves too many clusters and the upper one few enough; the run under the upper one
/// is stopped at the target. Where the run under the lower threshold agrees with it up to the new
/// level, as it nearly always does, this is breaking up that level pair by pair, by layer, row
/// and column. If the count of the upper threshold is right already, the result is exactly what
/// the reference gives at it.
///
/// A layer makes no merge below its minimum, which the reference calls `top_k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "nothing to set; it reproduces a reference")]
pub struct ReferenceLinkage;

impl ExpertClustering for ReferenceLinkage {
    fn cluster(
        &self,
        layers: &[DistanceMatrix],
        budget: &ExpertBudget,
    ) -> Result<Vec<Partition>, StageError> {
        let experts: Vec<usize> = layers.iter().map(DistanceMatrix::len).collect();
        budget.check(&experts)?;
        match *budget {
            ExpertBudget::Uniform { keep } => {
                Ok(layers.iter().flat_map(|layer| exactly(&[layer], keep, keep)).collect())
            }
            ExpertBudget::Global { keep, min_per_layer } => {
                let layers: Vec<&DistanceMatrix> = layers.iter().collect();
                Ok(exactly(&layers, keep, min_per_layer))
            }
            ref other => Err(Error::UnknownBudget(format!("{other:?}")).into()),
        }
    }
}

/// `keep` clusters over all layers, which must be feasible.
fn exactly(layers: &[&DistanceMatrix], keep: usize, min_per_layer: usize) -> Vec<Partition> {
    let minimums = layers.iter().map(|layer| layer.len().min(min_per_layer.max(1))).collect();
    let greedy = Greedy::new(layers, minimums);
    let reaches = |threshold: f64| {
        greedy.run(threshold, keep).iter().map(Partition::len).sum::<usize>() <= keep
    };
    let mut thresholds = greedy.levels();
    thresholds.push(f64::INFINITY);
    // Below the first level nothing merges; at infinity everything that may does.
    let (mut low, mut high) = (0, thresholds.len() - 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if reaches(thresholds[middle]) {
            high = middle;
        } else {
            low = middle;
        }
    }
    greedy.run(thresholds[high], keep)
}
