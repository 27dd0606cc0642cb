//! What can stop a clustering.

/// Why no clustering was made. An infeasible budget is reported in the words of
/// [`ExpertBudget::check`](moeprune_core::ExpertBudget::check).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A kind of budget added after this crate was written.
    #[error("this clustering does not know the budget {0}")]
    UnknownBudget(String),
    /// K-means with zero runs.
    #[error("k-means needs at least 1 run, got 0")]
    NoRuns,
    /// The eigenvalues behind the embedding were not found.
    #[error(
        "the distances of {experts} experts could not be embedded (no convergence); use an \
         agglomerative clustering"
    )]
    Embedding {
        /// Experts of the layer.
        experts: usize,
    },
    /// linfa refused.
    #[error("k-means into {clusters} clusters failed: {reason}")]
    KMeans {
        /// Clusters asked for.
        clusters: usize,
        /// linfa's message.
        reason: String,
    },
}
