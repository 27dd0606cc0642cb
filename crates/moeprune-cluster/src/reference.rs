//! The greedy linkage of the released STUN code.

use moeprune_core::{DistanceMatrix, Partition};

/// Clusters one layer as the released STUN code does (`greedy_but_reject_mixed`).
///
/// Pairs are visited by ascending distance, ties by row and then column, while their distance is
/// strictly below `threshold`. A pair `(i, j)` in two clusters merges them if every member of
/// `i`'s cluster is below the threshold from `j`, every member of `j`'s from `i`, and none of
/// those pairs was rejected before; otherwise `(i, j)` is rejected for good. At most `max_merges`
/// merges are made.
///
/// This is complete linkage in part only, as just the edges at the two endpoints are looked at:
/// members of a cluster can be farther apart than the threshold. Nor does the number of clusters
/// always fall when the threshold rises.
///
/// ```
/// use moeprune_cluster::reference_clusters;
/// use moeprune_core::DistanceMatrix;
///
/// // Experts 1 and 3 are 6 apart, and still end in one cluster at threshold 5.5.
/// let d = [[0.0, 1.0, 3.0, 4.0], [1.0, 0.0, 5.0, 6.0], [3.0, 5.0, 0.0, 2.0], [4.0, 6.0, 2.0, 0.0]];
/// let d = DistanceMatrix::from_rows(4, d.as_flattened())?;
/// assert_eq!(reference_clusters(&d, 5.5, 3).clusters(), [[0, 1, 2, 3]]);
/// # Ok::<(), moeprune_core::Error>(())
/// ```
#[must_use]
pub fn reference_clusters(
    distances: &DistanceMatrix,
    threshold: f64,
    max_merges: usize,
) -> Partition {
    let minimum = distances.len().saturating_sub(max_merges);
    let layers = [distances];
    Greedy::new(&layers, vec![minimum]).run(threshold, 0).swap_remove(0)
}

/// The pairs of several layers, in the order in which they are visited.
pub(crate) struct Greedy<'a> {
    layers: &'a [&'a DistanceMatrix],
    minimums: Vec<usize>,
    pairs: Vec<Pair>,
}

struct Pair {
    distance: f64,
    layer: usize,
    i: usize,
    j: usize,
}

impl<'a> Greedy<'a> {
    /// `minimums`: a layer with that many clusters merges no more.
    pub(crate) fn new(layers: &'a [&'a DistanceMatrix], minimums: Vec<usize>) -> Self {
        let mut pairs: Vec<Pair> = layers
            .iter()
            .enumerate()
            .flat_map(|(layer, distances)| {
                // Adding zero turns −0.0 into 0.0, so that the two are one tie.
                distances.pairs().map(move |(i, j, d)| Pair { distance: d + 0.0, layer, i, j })
            })
            .collect();
        // Stable, so that ties stay in the order of layers, rows and columns.
        pairs.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        Self { layers, minimums, pairs }
    }

    /// The distances that occur, ascending.
    pub(crate) fn levels(&self) -> Vec<f64> {
        let mut levels: Vec<f64> = self.pairs.iter().map(|pair| pair.distance).collect();
        levels.dedup();
        levels
    }

    /// Clusters all layers under one threshold, and stops as soon as `keep` clusters are left in
    /// all of them together.
    pub(crate) fn run(&self, threshold: f64, keep: usize) -> Vec<Partition> {
        let mut clusters: Vec<LayerClusters<'_>> =
            self.layers.iter().map(|distances| LayerClusters::singletons(distances)).collect();
        let mut left: usize = self.layers.iter().map(|distances| distances.len()).sum();
        for &Pair { distance, layer, i, j } in &self.pairs {
            if left <= keep || distance >= threshold || threshold.is_nan() {
                break;
            }
            let clusters = &mut clusters[layer];
            if clusters.left > self.minimums[layer] && clusters.try_merge(i, j, threshold) {
                left -= 1;
            }
        }
        clusters.iter().map(|clusters| Partition::from_labels(&clusters.cluster_of)).collect()
    }
}

struct LayerClusters<'a> {
    distances: &'a DistanceMatrix,
    cluster_of: Vec<usize>,
    members: Vec<Vec<usize>>,
    /// `n × n`, symmetric.
    rejected: Vec<bool>,
    left: usize,
}

impl<'a> LayerClusters<'a> {
    fn singletons(distances: &'a DistanceMatrix) -> Self {
        let n = distances.len();
        Self {
            distances,
            cluster_of: (0..n).collect(),
            members: (0..n).map(|e| vec![e]).collect(),
            rejected: vec![false; n * n],
            left: n,
        }
    }

    fn try_merge(&mut self, i: usize, j: usize, threshold: f64) -> bool {
        let (p, q) = (self.cluster_of[i], self.cluster_of[j]);
        if p == q {
            return false;
        }
        let n = self.distances.len();
        let joins =
            |a: usize, b: usize| self.distances.at(a, b) < threshold && !self.rejected[a * n + b];
        if self.members[p].iter().all(|&m| joins(m, j))
            && self.members[q].iter().all(|&m| joins(m, i))
        {
            let moved = std::mem::take(&mut self.members[q]);
            for &m in &moved {
                self.cluster_of[m] = p;
            }
            self.members[p].extend(moved);
            self.left -= 1;
            true
        } else {
            self.rejected[i * n + j] = true;
            self.rejected[j * n + i] = true;
            false
        }
    }
}
