//! Merging the nearest clusters until a budget is met.

use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition, StageError};

use crate::{Dendrogram, Error, Linkage};

/// Agglomerative clustering: the two nearest clusters of a layer merge, again and again.
///
/// * A **uniform** budget cuts every layer's [`Dendrogram`] into `keep` clusters.
/// * A **global** budget takes the lowest merges of all layers together, as many as experts must
///   go. Merges equally high are taken by layer, then in the layer's own order; a layer stops
///   merging at its minimum. In other words one threshold cuts all layers, and a level that holds
///   too many merges is used in part.
///
/// Distances of different layers are compared as they are; see the similarity for whether that is
/// fair to layers with small routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct Agglomerative {
    /// How far apart two clusters are.
    pub linkage: Linkage,
}

impl ExpertClustering for Agglomerative {
    fn cluster(
        &self,
        layers: &[DistanceMatrix],
        budget: &ExpertBudget,
    ) -> Result<Vec<Partition>, StageError> {
        let experts: Vec<usize> = layers.iter().map(DistanceMatrix::len).collect();
        budget.check(&experts)?;
        let dendrograms: Vec<Dendrogram> =
            layers.iter().map(|layer| Dendrogram::new(layer, self.linkage)).collect();
        let counts = clusters_per_layer(&dendrograms, budget)?;
        Ok(dendrograms.iter().zip(counts).map(|(d, count)| d.cut_into(count)).collect())
    }
}

/// How many clusters each layer is cut into under a feasible budget.
pub(crate) fn clusters_per_layer(
    dendrograms: &[Dendrogram],
    budget: &ExpertBudget,
) -> Result<Vec<usize>, Error> {
    let mut counts: Vec<usize> = dendrograms.iter().map(Dendrogram::experts).collect();
    match *budget {
        ExpertBudget::Uniform { keep } => counts.fill(keep),
        ExpertBudget::Global { keep, min_per_layer } => {
            let total: usize = counts.iter().sum();
            let mut merges: Vec<(f64, usize)> = Vec::new();
            for (layer, dendrogram) in dendrograms.iter().enumerate() {
                let allowed = dendrogram.experts().saturating_sub(min_per_layer.max(1));
                merges.extend(dendrogram.merges()[..allowed].iter().map(|m| (m.height, layer)));
            }
            // Stable, so that ties stay in the order of layers.
            merges.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            for &(_, layer) in &merges[..total - keep] {
                counts[layer] -= 1;
            }
        }
        ref other => return Err(Error::UnknownBudget(format!("{other:?}"))),
    }
    Ok(counts)
}
