//! Experts grouped into clusters.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A partition of the experts `0..n` of a layer into clusters, in canonical order: members
/// ascending within a cluster, clusters by smallest member.
///
/// ```
/// use moeprune_core::Partition;
/// let p = Partition::new(4, vec![vec![3, 1], vec![2], vec![0]])?;
/// assert_eq!(p.clusters(), [vec![0], vec![1, 3], vec![2]]);
/// assert!(Partition::new(4, vec![vec![0, 1], vec![1, 2, 3]]).is_err());
/// # Ok::<(), moeprune_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<usize>>", into = "Vec<Vec<usize>>")]
pub struct Partition {
    experts: usize,
    clusters: Vec<Vec<usize>>,
}

impl Partition {
    /// Checks that `clusters` cover `0..n` exactly once and puts them in canonical order.
    ///
    /// # Errors
    /// [`Error::NotAPartition`] if a cluster is empty, an expert is missing, repeated or not
    /// below `n`.
    pub fn new(n: usize, mut clusters: Vec<Vec<usize>>) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::NotAPartition { n, reason });
        let mut seen = vec![false; n];
        for cluster in &mut clusters {
            if cluster.is_empty() {
                return bad("a cluster is empty".into());
            }
            cluster.sort_unstable();
            for &expert in cluster.iter() {
                match seen.get_mut(expert) {
                    None => return bad(format!("expert {expert} does not exist")),
                    Some(true) => return bad(format!("expert {expert} is in two places")),
                    Some(seen) => *seen = true,
                }
            }
        }
        if let Some(missing) = seen.iter().position(|seen| !seen) {
            return bad(format!("expert {missing} is in no cluster"));
        }
        clusters.sort_unstable();
        Ok(Self { experts: n, clusters })
    }

    /// Every expert alone.
    #[must_use]
    pub fn singletons(n: usize) -> Self {
        Self { experts: n, clusters: (0..n).map(|e| vec![e]).collect() }
    }

    /// Builds the partition in which two experts are together when their labels are equal.
    #[must_use]
    pub fn from_labels(labels: &[usize]) -> Self {
        let mut clusters: Vec<(usize, Vec<usize>)> = Vec::new();
        for (expert, &label) in labels.iter().enumerate() {
            match clusters.iter_mut().find(|(l, _)| *l == label) {
                Some((_, members)) => members.push(expert),
                None => clusters.push((label, vec![expert])),
            }
        }
        let clusters = clusters.into_iter().map(|(_, members)| members).collect();
        Self { experts: labels.len(), clusters }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Number of clusters, which is the number of experts that survive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clusters.len()
    }

    /// Whether there are no clusters, hence no experts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// The clusters in canonical order, each non-empty and ascending.
    #[must_use]
    pub fn clusters(&self) -> &[Vec<usize>] {
        &self.clusters
    }
}

impl TryFrom<Vec<Vec<usize>>> for Partition {
    type Error = Error;
    fn try_from(clusters: Vec<Vec<usize>>) -> Result<Self, Error> {
        Self::new(clusters.iter().map(Vec::len).sum(), clusters)
    }
}

impl From<Partition> for Vec<Vec<usize>> {
    fn from(partition: Partition) -> Self {
        partition.clusters
    }
}
