//! The order in which the experts of one layer merge, and how high.

use moeprune_core::{DistanceMatrix, Partition};

/// How far apart two clusters are, given the distances of their members.
///
/// With each of these a merge is never lower than one before it, so a cut by height and a cut by
/// count are the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Linkage {
    /// The farthest pair: everything in a cluster is within the height of everything else in it.
    #[default]
    Complete,
    /// The mean over all pairs.
    Average,
    /// The nearest pair: clusters grow into chains.
    Single,
}

impl Linkage {
    /// Distance from `P ∪ Q` to a third cluster, given those of `P` and `Q` and their sizes.
    fn merged(self, to_p: f64, to_q: f64, p: usize, q: usize) -> f64 {
        let (low, high) = if to_p <= to_q { (to_p, to_q) } else { (to_q, to_p) };
        match self {
            Self::Complete => high,
            // Written as a step from one towards the other, equal distances stay exactly equal;
            // and kept between the two, rounding can never produce an inversion.
            Self::Average => (to_p + (to_q - to_p) * (q as f64 / (p + q) as f64)).clamp(low, high),
            Self::Single => low,
        }
    }
}

/// Two clusters becoming one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Merge {
    /// Distance between the two by the linkage.
    pub height: f64,
    /// Smallest member of the one cluster, and of the two together.
    pub i: usize,
    /// Smallest member of the other; above `i`.
    pub j: usize,
}

/// The `n − 1` merges of a layer of `n` experts, lowest first.
///
/// Always the two nearest clusters merge; of several pairs equally near, the one with the lowest
/// `(i, j)`, a cluster being named by its smallest member.
///
/// ```
/// use moeprune_cluster::{Dendrogram, Linkage};
/// use moeprune_core::DistanceMatrix;
///
/// let at = [0.0f64, 4.0, 1.0];
/// let layer = DistanceMatrix::from_fn(3, |i, j| (at[i] - at[j]).abs())?;
/// let dendrogram = Dendrogram::new(&layer, Linkage::Complete);
/// let heights: Vec<f64> = dendrogram.merges().iter().map(|m| m.height).collect();
/// assert_eq!(heights, [1.0, 4.0]);
/// assert_eq!(dendrogram.cut_into(2).clusters(), [vec![0, 2], vec![1]]);
/// assert_eq!(dendrogram.cut_below(1.0).len(), 3);
/// # Ok::<(), moeprune_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Dendrogram {
    experts: usize,
    merges: Vec<Merge>,
}

impl Dendrogram {
    /// Merges a layer's experts until one cluster is left.
    ///
    /// Takes `O(n²)` memory, and `O(n²)` time unless many experts share a nearest neighbour
    /// (`O(n³)` at worst).
    #[must_use]
    pub fn new(distances: &DistanceMatrix, linkage: Linkage) -> Self {
        let experts = distances.len();
        let mut clusters = Clusters::singletons(distances, linkage);
        let merges = (1..experts).map(|_| clusters.merge_nearest()).collect();
        Self { experts, merges }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// The merges in order; heights never fall.
    #[must_use]
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// The partition into `clusters` clusters: `n` if more are asked for, 1 if none is.
    #[must_use]
    pub fn cut_into(&self, clusters: usize) -> Partition {
        self.after(self.experts.saturating_sub(clusters.max(1)))
    }

    /// The partition by all merges strictly below `threshold`.
    #[must_use]
    pub fn cut_below(&self, threshold: f64) -> Partition {
        self.after(self.merges.partition_point(|m| m.height < threshold))
    }

    fn after(&self, merges: usize) -> Partition {
        let mut cluster_of: Vec<usize> = (0..self.experts).collect();
        for merge in &self.merges[..merges] {
            for cluster in &mut cluster_of {
                if *cluster == merge.j {
                    *cluster = merge.i;
                }
            }
        }
        Partition::from_labels(&cluster_of)
    }
}

/// Clusters part-way through, each under its smallest member.
struct Clusters {
    n: usize,
    linkage: Linkage,
    /// `n × n`, symmetric; rows and columns of absorbed clusters are stale.
    distances: Vec<f64>,
    sizes: Vec<usize>,
    /// Ascending.
    alive: Vec<usize>,
    /// For each but the last alive: its nearest among the later ones, the earliest if several.
    nearest: Vec<(f64, usize)>,
}

impl Clusters {
    fn singletons(distances: &DistanceMatrix, linkage: Linkage) -> Self {
        let n = distances.len();
        // Adding zero turns −0.0 into 0.0, so that the two are one tie wherever heights are sorted.
        let values = (0..n * n).map(|at| distances.at(at / n, at % n) + 0.0).collect();
        let mut clusters = Self {
            n,
            linkage,
            distances: values,
            sizes: vec![1; n],
            alive: (0..n).collect(),
            nearest: vec![(f64::INFINITY, usize::MAX); n],
        };
        for i in 0..n {
            clusters.find_nearest(i);
        }
        clusters
    }

    fn merge_nearest(&mut self) -> Merge {
        let (mut i, mut best) = (0, (f64::INFINITY, usize::MAX));
        for &candidate in &self.alive {
            if self.nearest[candidate].0 < best.0 {
                (i, best) = (candidate, self.nearest[candidate]);
            }
        }
        let (height, j) = best;
        self.alive.retain(|&k| k != j);
        for at in 0..self.alive.len() {
            let k = self.alive[at];
            if k != i {
                let (to_i, to_j) = (self.at(k, i), self.at(k, j));
                let to_both = self.linkage.merged(to_i, to_j, self.sizes[i], self.sizes[j]);
                self.distances[k * self.n + i] = to_both;
                self.distances[i * self.n + k] = to_both;
            }
        }
        self.sizes[i] += self.sizes[j];
        for at in 0..self.alive.len() {
            let k = self.alive[at];
            if k >= j {
                break;
            }
            let (distance, neighbour) = self.nearest[k];
            if k == i || neighbour == i || neighbour == j {
                self.find_nearest(k);
            } else if k < i {
                let to_i = self.at(k, i);
                if to_i < distance || (to_i == distance && i < neighbour) {
                    self.nearest[k] = (to_i, i);
                }
            }
        }
        Merge { height, i, j }
    }

    fn find_nearest(&mut self, i: usize) {
        let mut nearest = (f64::INFINITY, usize::MAX);
        let later = self.alive.partition_point(|&k| k <= i);
        for &k in &self.alive[later..] {
            if self.at(i, k) < nearest.0 {
                nearest = (self.at(i, k), k);
            }
        }
        self.nearest[i] = nearest;
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.distances[i * self.n + j]
    }
}
