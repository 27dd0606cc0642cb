//! Errors of the checked types, and the error that crosses a stage trait.

/// What a stage implementation returns when it cannot do its work.
///
/// Any error converts into it with `?`, and so does a string, so an extension needs no error type
/// of its own. The caller adds which layer and which stage it was.
pub type StageError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A value that would break an invariant of this crate's types.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside `0 <= s < 1`.
    #[error("sparsity must be at least 0 and below 1, got {0}")]
    Sparsity(f64),
    /// The asked total cannot be reached by zeroing weights.
    #[error(
        "cannot reach a total sparsity of {target}: {removed} of {denominator} parameters are \
         already removed and {prunable} are left to prune; ask for {feasible}"
    )]
    UnreachableSparsity {
        /// Sparsity asked for.
        target: f64,
        /// Parameters the target counts over.
        denominator: u64,
        /// Parameters already gone.
        removed: u64,
        /// Parameters that may still be zeroed.
        prunable: u64,
        /// What would be possible, as text.
        feasible: String,
    },
    /// A distance that is not a number or infinite.
    #[error("distance between experts {i} and {j} is {value}; distances must be finite")]
    DistanceNotFinite {
        /// First expert.
        i: usize,
        /// Second expert.
        j: usize,
        /// The value found.
        value: f64,
    },
    /// Two entries of a distance matrix that should be equal are not.
    #[error("distance matrix is not symmetric at ({i}, {j}): {a} and {b}")]
    DistanceAsymmetric {
        /// Row.
        i: usize,
        /// Column.
        j: usize,
        /// Entry at (i, j).
        a: f64,
        /// Entry at (j, i).
        b: f64,
    },
    /// The wrong number of values for a shape.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// What was being built.
        what: &'static str,
        /// Number of values the shape asks for.
        expected: usize,
        /// Number of values given.
        got: usize,
    },
    /// A shape whose rows end within a block, or whose bytes cannot be counted.
    #[error(
        "{dtype} cannot be of shape {shape:?}: rows must be whole blocks, and bytes be countable"
    )]
    Blocks {
        /// The block type.
        dtype: crate::Dtype,
        /// The shape asked for, outermost dimension first.
        shape: Vec<usize>,
    },
    /// A range of elements that begins or ends within a byte or a block.
    #[error("elements {}..{} of {dtype} are no whole number of bytes or blocks", range.start, range.end)]
    Unaligned {
        /// The element type.
        dtype: crate::Dtype,
        /// The elements asked for.
        range: std::ops::Range<usize>,
    },
    /// Clusters that are not a partition of `0..n`.
    #[error("clusters are not a partition of {n} experts: {reason}")]
    NotAPartition {
        /// Number of experts to be covered.
        n: usize,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of a type that cannot be read as floating-point weights.
    #[error("cannot read {0} as weights: only F32, F16 and BF16 are supported")]
    NotFloat(crate::Dtype),
    /// A stored weight that is not what its encoding asks for.
    #[error("not a weight in the encoding {encoding}: {reason}")]
    Encoding {
        /// The encoding.
        encoding: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A known format that is not decoded.
    #[error(
        "weights stored as {0} are not decoded: whole experts can still be removed by router distance \
         or a keep-list; to observe the model or zero weights, convert it to BF16, FP8 or INT4 \
         (pack-quantized)"
    )]
    NotDecoded(String),
    /// A weight in an encoding that is read and never zeroed.
    #[error(
        "weights stored as {0} are read only: zeroing weights is for safetensors; remove whole experts \
         only, or start from the model in safetensors"
    )]
    NotZeroed(&'static str),
    /// Tensors of a module that are of no known format.
    #[error(
        "no known format of weights has the tensors {0}: whole experts can still be removed by router \
         distance or a keep-list"
    )]
    UnknownModule(String),
    /// A key of `quantization_config` with a value that it cannot have.
    #[error("`{key}` in quantization_config is {got}, expected {expected}")]
    QuantConfig {
        /// The key.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// A weight whose elements are no numbers by themselves, where such are needed.
    #[error(
        "the weight is stored as {0}, and this step needs plain numbers; convert it to BF16, F16 or \
         F32"
    )]
    NotPlain(&'static str),
    /// Values that should be stored in an encoding that is only read and zeroed.
    #[error("weights stored as {0} can be zeroed but not changed; use a method that only zeroes")]
    NotEncodable(&'static str),
    /// A string that names no Linear.
    #[error("`{0}` names no Linear; expected for example `attention.query` or `expert.3.down`")]
    LinearName(String),
    /// Not one part of several.
    #[error(
        "`{0}` is not a part: expected I/N, as in 3/8, with I from 1 to N, and N at most 1048576"
    )]
    Part(String),
    /// A text that is no fingerprint of this version.
    #[error("`{0}` is no fingerprint; expected two hashes with `+` between")]
    Fingerprint(String),
    /// Two observations that cannot be added.
    #[error("observations do not match: {0}")]
    ObservationMismatch(String),
}
