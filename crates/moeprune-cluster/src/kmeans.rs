//! K-means on an embedding of the distances.

use linfa::{
    DatasetBase,
    traits::{Fit, Predict},
};
use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition, StageError};
use ndarray::{Array2, ArrayView1};
use rand_xoshiro::{Xoshiro256Plus, rand_core::SeedableRng};

use crate::{Dendrogram, Error, Linkage, agglomerative::clusters_per_layer, embedding::embed};

/// K-means (linfa's, from k-means++ starts) on the classical multidimensional scaling of the
/// distances.
///
/// * Negative distances are shifted up to 0 first: k-means needs lengths.
/// * Linfa may leave clusters empty. Each is given the expert farthest from its own cluster's
///   mean, among clusters of more than one; the lowest index if several are.
/// * A **global** budget gives each layer the number of clusters that complete linkage gives it
///   ([`Agglomerative`](crate::Agglomerative)), and k-means makes them.
///
/// Every layer starts from the same seed, so the result for a layer does not depend on the layers
/// beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct KMeans {
    /// Seed of the starts.
    pub seed: u64,
    /// Starts; the one with the least inertia is taken. At least 1.
    pub runs: usize,
}

impl Default for KMeans {
    /// Seed 0, 10 runs.
    fn default() -> Self {
        Self { seed: 0, runs: 10 }
    }
}

impl ExpertClustering for KMeans {
    fn cluster(
        &self,
        layers: &[DistanceMatrix],
        budget: &ExpertBudget,
    ) -> Result<Vec<Partition>, StageError> {
        let experts: Vec<usize> = layers.iter().map(DistanceMatrix::len).collect();
        budget.check(&experts)?;
        if self.runs == 0 {
            return Err(Error::NoRuns.into());
        }
        let dendrograms: Vec<Dendrogram> =
            layers.iter().map(|layer| Dendrogram::new(layer, Linkage::Complete)).collect();
        let counts = clusters_per_layer(&dendrograms, budget)?;
        let partitions = layers.iter().zip(counts).map(|(layer, count)| self.layer(layer, count));
        Ok(partitions.collect::<Result<_, Error>>()?)
    }
}

impl KMeans {
    fn layer(&self, distances: &DistanceMatrix, clusters: usize) -> Result<Partition, Error> {
        let n = distances.len();
        if clusters == n {
            return Ok(Partition::singletons(n));
        }
        let dataset = DatasetBase::from(embed(distances)?);
        let rng = Xoshiro256Plus::seed_from_u64(self.seed);
        let model = linfa_clustering::KMeans::params_with_rng(clusters, rng)
            .n_runs(self.runs)
            .tolerance(1e-9)
            .fit(&dataset)
            .map_err(|e| Error::KMeans { clusters, reason: e.to_string() })?;
        let mut labels = model.predict(dataset.records()).to_vec();
        fill_empty(&mut labels, clusters, dataset.records());
        Ok(Partition::from_labels(&labels))
    }
}

/// Gives every empty cluster the expert farthest from its cluster's mean.
fn fill_empty(labels: &mut [usize], clusters: usize, points: &Array2<f64>) {
    let members = |labels: &[usize], cluster: usize| -> Vec<usize> {
        (0..labels.len()).filter(|&e| labels[e] == cluster).collect()
    };
    for empty in 0..clusters {
        if !members(labels, empty).is_empty() {
            continue;
        }
        let mut farthest = (f64::NEG_INFINITY, 0);
        for cluster in 0..clusters {
            let members = members(labels, cluster);
            if members.len() < 2 {
                continue;
            }
            let rows = members.iter().map(|&e| points.row(e));
            let sum = rows.fold(ndarray::Array1::zeros(points.ncols()), |sum, row| sum + row);
            let mean = sum / members.len() as f64;
            for &e in &members {
                let distance = squared(points.row(e), mean.view());
                if distance > farthest.0 || (distance == farthest.0 && e < farthest.1) {
                    farthest = (distance, e);
                }
            }
        }
        labels[farthest.1] = empty;
    }
}

fn squared(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(labels: &[usize], clusters: usize, at: &[f64], expected: &[usize]) {
        let mut labels = labels.to_vec();
        let points = Array2::from_shape_vec((at.len(), 1), at.to_vec()).unwrap();
        fill_empty(&mut labels, clusters, &points);
        assert_eq!(labels, expected);
    }

    #[test]
    fn an_empty_cluster_takes_the_outlier() {
        check(&[0, 0, 0], 2, &[0.0, 0.1, 5.0], &[0, 0, 1]);
        check(&[0, 0, 0, 3], 4, &[0.0, 1.0, 9.0, 50.0], &[2, 0, 1, 3]);
    }

    #[test]
    fn of_equally_far_experts_it_takes_the_first() {
        check(&[0, 0], 2, &[1.0, 2.0], &[1, 0]);
        check(&[2, 2, 2], 3, &[1.0, 1.0, 1.0], &[0, 1, 2]);
    }
}
