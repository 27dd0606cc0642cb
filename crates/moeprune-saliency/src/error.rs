//! What can stop a saliency.

/// Why a layer's experts could not be ranked. The pipeline adds which layer it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was observed.
    #[error(
        "ranking experts needs an observation of this layer's router, and there is none (an imatrix \
         of the older form has none); observe the model on calibration text first"
    )]
    NoObservation,
    /// The observation has another number of experts than the router.
    #[error(
        "the observation has {observed} experts and the router has {router}; it was taken on \
         another model"
    )]
    ExpertCount {
        /// Experts in the observation.
        observed: usize,
        /// Rows of the router.
        router: usize,
    },
    /// An observation that was not made by running the model.
    #[error(
        "the observation has no {what}, as it was not made by running the model (an imatrix has none); \
         rank by frequency, or observe the model on calibration text"
    )]
    NotRun {
        /// What is missing.
        what: &'static str,
    },
    /// An older observation, in which peaks were not taken.
    #[error(
        "the observation has no peaks of the experts' outputs, as it was taken by an older version; \
         observe the model again"
    )]
    NoPeaks,
    /// A parameter outside its range.
    #[error("{name} must be {range}, got {value}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it was set to.
        value: f64,
    },
}
