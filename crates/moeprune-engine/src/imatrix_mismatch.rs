//! How an imatrix does not fit a model.

/// Why an imatrix is not one of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImatrixMismatch {
    /// A tensor of another shape.
    #[error(
        "tensor `{tensor}`: expected {expected} ({linear} of layer {layer}), got {got}; it is of another \
         model: collect one on the GGUF of this model"
    )]
    Shape {
        /// Which.
        tensor: String,
        /// What it is in the model.
        linear: String,
        /// In which layer.
        layer: usize,
        /// What the model has.
        expected: String,
        /// What the imatrix has.
        got: String,
    },
    /// A layer that the model has not.
    #[error(
        "tensor `{tensor}` is of layer {layer}, expected one of the model's {layers}; the imatrix is of \
         another model: collect one on the GGUF of this model"
    )]
    Layer {
        /// The tensor.
        tensor: String,
        /// Its layer.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Tensors that read one vector, or belong to one expert, and differ in what reached them.
    #[error(
        "tensors `{first}` and `{second}` multiply for the same tokens; expected the same counts, got \
         {expected} and {got}{}; collect the imatrix again", of_expert(*.expert)
    )]
    Disagree {
        /// One tensor.
        first: String,
        /// The other.
        second: String,
        /// Count of the first.
        expected: u64,
        /// Count of the other.
        got: u64,
        /// Of which expert, if it is one's.
        expert: Option<usize>,
    },
    /// Counts that are not those of a router.
    #[error(
        "tensor `{tensor}`: expected counts that sum to {tokens} tokens × {top_k} experts, got {got}; it \
         was converted from the older form, which has no counts, cut along with its model, or collected with another number of \
         active experts: collect it again"
    )]
    Routing {
        /// The experts' tensor.
        tensor: String,
        /// Tokens that the router saw.
        tokens: u64,
        /// Experts that each goes through.
        top_k: usize,
        /// What the counts sum to.
        got: u64,
    },
    /// Sums where no token came.
    #[error(
        "tensor `{tensor}`: expected zeros for expert {expert}, to which no token was routed, got {got}; \
         collect the imatrix again"
    )]
    Idle {
        /// Which.
        tensor: String,
        /// The expert.
        expert: usize,
        /// A sum.
        got: String,
    },
    /// Nothing of the model is in it.
    #[error(
        "it has no tensor of this model: expected such as `{tensor}`; collect one on the GGUF of this \
         model"
    )]
    OfOthers {
        /// A tensor that should be there.
        tensor: String,
    },
}

fn of_expert(expert: Option<usize>) -> String {
    expert.map_or_else(String::new, |expert| format!(" for expert {expert}"))
}
