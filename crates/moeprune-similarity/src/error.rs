//! What can stop a similarity.

/// Why a layer's distances could not be computed. The pipeline adds which layer it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What experts did is needed and nothing was observed.
    #[error(
        "this distance needs an observation of the layer, and there is none; observe the model on \
         calibration text first, or use the router distance"
    )]
    NoObservation,
    /// Which experts were chosen together is needed, and the observation was not made by running the model.
    #[error(
        "the observation does not say which experts were chosen together, as it was not made by \
         running the model (an imatrix says no such thing); observe the model on calibration text, or \
         use the router distance"
    )]
    NoCoActivation,
    /// Outputs are needed and were not summed.
    #[error(
        "the observation has no sums of the experts' outputs, as it was taken by an older version, \
         not made by running the model, or blended from one that was not; observe the model on \
         calibration text"
    )]
    NoOutputs,
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
    /// The co-activation matrix of an observation is not `n × n`.
    #[error("the co-activations of {experts} experts are {expected} counts, got {got}")]
    CoActivationLength {
        /// Number of experts.
        experts: usize,
        /// Its square.
        expected: usize,
        /// Counts in the observation.
        got: usize,
    },
    /// No two experts were ever chosen for one token.
    #[error(
        "no token chose two experts of this layer ({tokens} tokens, top-{top_k}), so \
         co-activation says nothing; {}",
        without_pairs(*top_k)
    )]
    NothingCoActivated {
        /// Tokens the router saw.
        tokens: u64,
        /// Experts a token goes through.
        top_k: usize,
    },
    /// More tokens chose both experts than chose one of them.
    #[error(
        "the observation contradicts itself: {both} tokens chose experts {i} and {j}, but they \
         were chosen {count_i} and {count_j} times"
    )]
    Inconsistent {
        /// First expert.
        i: usize,
        /// Second expert.
        j: usize,
        /// Tokens that chose both.
        both: u64,
        /// Tokens that chose `i`.
        count_i: u64,
        /// Tokens that chose `j`.
        count_j: u64,
    },
    /// The router is all zeros, so that nothing can be measured relative to it.
    #[error("the router is all zeros and cannot be normalised; use the plain router distance")]
    ZeroRouter,
    /// The weights of the norm before the router are needed and not given.
    #[error(
        "the weights of the norm before the router are not known; use the router distance without \
         `input_scale`"
    )]
    NoInputScale,
    /// A weight of a mix that is negative, infinite or not a number.
    #[error("{name} must be finite and at least 0, got {value}")]
    Weight {
        /// Field of [`Mixed`](crate::Mixed).
        name: &'static str,
        /// What it was set to.
        value: f64,
    },
}

/// What to do where no two experts were chosen together: no text changes that of a router that chooses one.
fn without_pairs(top_k: usize) -> &'static str {
    match top_k {
        1 => "a router that chooses one expert per token never does; use the router distance",
        _ => "observe more text, or use the router distance",
    }
}
