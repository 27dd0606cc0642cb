//! What can stop a selection.

/// Why no survivors were named. The pipeline adds which layer it was.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
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
    /// Token counts are needed and there are none.
    #[error(
        "choosing or weighing experts by tokens needs an observation, and there is none; observe \
         the model on calibration text first"
    )]
    NoTokens,
    /// A saliency that is not one.
    #[error("the saliency of expert {expert} is {value}; it must be finite and at least 0")]
    Saliency {
        /// The expert.
        expert: usize,
        /// Its saliency.
        value: f64,
    },
    /// So many experts are protected that not enough can go.
    #[error(
        "{protected} experts are protected, and only {keep} may stay; protect fewer or drop fewer"
    )]
    AllProtected {
        /// Experts that must stay.
        protected: usize,
        /// Experts that may.
        keep: usize,
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
