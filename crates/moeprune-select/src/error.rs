//! What can stop a selection.

/// Why no survivors were named. The pipeline adds which layer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Token counts of another number of experts.
    #[error(
        "token counts are there for {counts} experts and the layer has {experts}; the observation \
         is of another model"
    )]
    TokenCounts {
        /// Experts counted.
        counts: usize,
        /// Experts of the layer.
        experts: usize,
    },
    /// Weights that are infinite or not numbers.
    #[error(
        "expert {expert} has a weight that is infinite or not a number; the checkpoint is damaged"
    )]
    NotFinite {
        /// The expert.
        expert: usize,
    },
}
