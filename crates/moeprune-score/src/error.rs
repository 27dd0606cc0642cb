//! What can be wrong with a matrix, its inputs or a parameter.

use moeprune_core::{Dtype, LinearId, StageError};

/// Why a matrix cannot be scored, masked or given a ratio.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor is not the matrix the Linear says it is.
    #[error("layer {layer} {linear}: expected a tensor of shape {expected:?}, got {got:?}")]
    Shape {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// `[rows, cols]` of the Linear.
        expected: [usize; 2],
        /// Shape of the tensor.
        got: Vec<usize>,
    },
    /// The tensor does not hold floating-point weights.
    #[error(
        "layer {layer} {linear}: cannot prune {dtype} weights; convert them to F32, F16 or BF16"
    )]
    Dtype {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Type of the tensor.
        dtype: Dtype,
    },
    /// The input statistics are of another Linear.
    #[error(
        "layer {layer} {linear}: its input has {expected} features but the statistics have {got}; \
         is the observation of this model?"
    )]
    Features {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Columns of the Linear.
        expected: usize,
        /// Features of the moments.
        got: usize,
    },
    /// A sum of squares that cannot be one, or that overflows `f32`.
    #[error(
        "input feature {feature} has a sum of squares of {value}; it must be a finite number, not \
         negative, with a mean in the range of f32: take the observation again"
    )]
    Moment {
        /// Input feature, a column of the Linear.
        feature: usize,
        /// The sum found.
        value: f64,
    },
    /// Statistics that count tokens but no calls, under a normalisation that divides by calls.
    #[error(
        "the input statistics count {tokens} tokens but no calls, which the per-call \
         normalisation divides by; normalise per token (`normalization=per-token`), as an imatrix \
         of the older form needs it, or observe the model on calibration text"
    )]
    NoCalls {
        /// Tokens counted.
        tokens: u64,
    },
    /// The scorer refused the Linear.
    #[error("layer {layer} {linear}: the scorer {scorer} cannot score it: {source}")]
    Scorer {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// The scorer, as it shows itself for debugging.
        scorer: String,
        /// Why.
        source: StageError,
    },
    /// A score that cannot be ranked.
    #[error(
        "layer {layer} {linear}: the score of the weight {weight} at row {row}, column {col} is \
         {score}; scores must be finite and not negative: look for damage in the checkpoint or in \
         the observation"
    )]
    Score {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Row of the matrix.
        row: usize,
        /// Column of the matrix.
        col: usize,
        /// The weight there.
        weight: f32,
        /// What the scorer made of it.
        score: f32,
    },
    /// A weight that is no number.
    #[error(
        "layer {layer} {linear}: the weight at row {row}, column {col} is {weight}; it must be \
         finite: look for damage in the checkpoint, or raise the damping if it was made so by what \
         others lost"
    )]
    Weight {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Row of the matrix.
        row: usize,
        /// Column of the matrix.
        col: usize,
        /// The weight there.
        weight: f32,
    },
    /// A reconstructed weight beyond what its type holds.
    #[error(
        "layer {layer} {linear}: to make up for weights that went, the one at row {row}, column \
         {col} became {weight}, which {dtype} cannot hold: raise the damping, or zero fewer"
    )]
    TooLarge {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Row of the matrix.
        row: usize,
        /// Column of the matrix.
        col: usize,
        /// What the weight became.
        weight: f32,
        /// Type of the tensor.
        dtype: Dtype,
    },
    /// A weight in an encoding whose weights are read only.
    #[error("layer {layer} {linear}: {source}")]
    NotZeroed {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Why, and what can be done.
        source: Box<moeprune_core::Error>,
    },
    /// Weights that should be zeroed and cannot be as they are stored.
    #[error(
        "layer {layer} {linear}: {without} of the {chosen} weights that are to become zero have no code that \
         is zero in the encoding {encoding}, the first at row {row}, column {col}: the zero points of their \
         groups are outside of the codes (a stored 15 of GPTQ version 1 means 16); remove whole experts \
         only, or start from the model in version 2 (`gptq_v2`) or in BF16"
    )]
    NoZero {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// How many such weights the matrix has among those that were chosen.
        without: u64,
        /// How many were chosen.
        chosen: u64,
        /// Row of the first.
        row: usize,
        /// Column of the first.
        col: usize,
        /// How it is stored.
        encoding: &'static str,
    },
    /// A sum of products of inputs that cannot be one, or whose mean overflows `f32`.
    #[error(
        "layer {layer} {linear}: the Hessian at row {row}, column {col} is {value}; it must be \
         finite, also as a mean over calls, and not negative on the diagonal: sum the inputs again"
    )]
    Hessian {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Row of the Hessian.
        row: usize,
        /// Column of the Hessian.
        col: usize,
        /// The sum there.
        value: f32,
    },
    /// A Hessian that no damping made positive definite.
    #[error(
        "layer {layer} {linear}: the Hessian is not positive definite, neither with a damping of \
         {damping} nor with one of {raised}, as sums of x xᵀ would be: sum the inputs again, or ask \
         for more damping"
    )]
    NotPositiveDefinite {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// The damping asked for.
        damping: f64,
        /// The largest that was tried.
        raised: f64,
    },
    /// The reconstructor refused the Linear.
    #[error(
        "layer {layer} {linear}: the reconstructor {reconstructor} cannot reconstruct it: {source}"
    )]
    Reconstructor {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// The reconstructor, as it shows itself for debugging.
        reconstructor: String,
        /// Why.
        source: StageError,
    },
    /// A pattern marked everything.
    #[error(
        "layer {layer} {linear}: the pattern {pattern} would zero all of its weights; a matrix is \
         never zeroed entirely"
    )]
    WholeMatrix {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// The pattern, as it shows itself for debugging.
        pattern: String,
    },
    /// An impossible N:M pattern.
    #[error("cannot zero {n} of every {m} weights: n must be below m, as in 2 of 4")]
    NOfM {
        /// Weights to zero in a group.
        n: usize,
        /// Size of a group.
        m: usize,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}; it must be {range}")]
    Parameter {
        /// Parameter.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it may be, as text.
        range: &'static str,
    },
    /// A layer whose outliers were not counted.
    #[error(
        "layer {layer} has {percent:?} as its percentage of outliers, which must be from 0 to \
         100: OWL needs a statistics pass over every layer"
    )]
    OutlierPercent {
        /// Decoder layer.
        layer: usize,
        /// What was given.
        percent: Option<f64>,
    },
}
