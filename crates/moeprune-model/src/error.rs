//! What can go wrong while a model runs.

use moeprune_core::{Dtype, StageError, TensorId};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor source has no such tensor, or could not read it.
    #[error("cannot read {tensor}: {source}")]
    Read {
        /// The part asked for.
        tensor: TensorId,
        /// What the source said.
        source: StageError,
    },
    /// A stored tensor has another shape than the specification asks for.
    #[error(
        "{tensor} has shape {got:?}, expected {expected:?}: the weights do not belong to this \
         configuration"
    )]
    Shape {
        /// The part read.
        tensor: TensorId,
        /// Shape the specification asks for.
        expected: Vec<usize>,
        /// Shape stored.
        got: Vec<usize>,
    },
    /// Weights that are held as one but are stored in different types.
    #[error(
        "{tensor} is stored as {got}, the weights it is held together with as {expected}; on a \
         device they must be of one type: run this model on the CPU"
    )]
    MixedTypes {
        /// The part that differs.
        tensor: TensorId,
        /// Type of the first of them.
        expected: Dtype,
        /// Its type.
        got: Dtype,
    },
    /// No CUDA device to run on.
    #[error("cannot run on a CUDA device: {0}")]
    NoCuda(String),
    /// A processor, or a system, without tiles.
    #[error(
        "this processor has no tiles for bf16 (AMX), or its system does not let programs use them: compute in f32 without"
    )]
    NoTiles,
    /// A specification this crate cannot run.
    #[error("cannot run this model: {0}")]
    Spec(String),
    /// Weights in a form that is not decoded.
    #[error(
        "{what} stored as {form}, so that the model cannot be run; start from its bf16 form to run it, or cut \
         whole experts of this one, by router distance or a keep-list"
    )]
    Undecoded {
        /// Which, with the verb.
        what: String,
        /// What the form is called, and why it is not decoded.
        form: String,
    },
    /// A kind of part that this crate cannot run.
    #[error(
        "{part} kind `{kind}` of layer {layer} cannot be run; the model can be inspected, planned \
         by router distance or a keep-list, applied and verified"
    )]
    Kind {
        /// Decoder layer.
        layer: usize,
        /// Which part of it.
        part: &'static str,
        /// Its kind.
        kind: String,
    },
    /// More keys than a selection holds, in a layer that takes over another one's.
    #[error(
        "layer {layer} sees the keys that the layer before it selected (indexer kind `shared`), which \
         only a model that is in memory as a whole hands on: run sequences of at most {top_k} tokens, \
         which need no selection, not of {keys}"
    )]
    NoSelection {
        /// Decoder layer.
        layer: usize,
        /// Keys that are selected.
        top_k: usize,
        /// Keys that there are.
        keys: usize,
    },
    /// A hidden state that is not `[batch, seq, hidden]`.
    #[error("hidden state has shape {got:?}, expected [batch, seq, {hidden}]")]
    HiddenShape {
        /// Width of the residual stream.
        hidden: usize,
        /// Shape given.
        got: Vec<usize>,
    },
    /// A cache for another number of sequences.
    #[error("the cache holds {cached} sequences, the hidden state {batch}")]
    CacheBatch {
        /// Sequences in the cache.
        cached: usize,
        /// Sequences in the hidden state.
        batch: usize,
    },
    /// A position that does not continue what is cached.
    #[error("sequence {sequence} continues at position {start}, but {cached} are cached")]
    CacheStart {
        /// Index in the batch.
        sequence: usize,
        /// Position of the first new token.
        start: usize,
        /// Positions in the cache.
        cached: usize,
    },
    /// A token the model has no embedding for.
    #[error("token id {token} is outside the vocabulary of {vocab}; is this another tokenizer's?")]
    Token {
        /// The token id.
        token: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// More positions than the model was made for.
    #[error(
        "a sequence of {len} tokens is longer than the model's {max_positions} positions; \
         shorten it"
    )]
    TooLong {
        /// Tokens, those still to be generated included.
        len: usize,
        /// Positions the model has.
        max_positions: usize,
    },
    /// A sequence without tokens.
    #[error("sequence {sequence} is empty; a model needs at least one token")]
    EmptySequence {
        /// Index among the sequences given.
        sequence: usize,
    },
    /// A router whose output is NaN or infinite.
    #[error(
        "the router of layer {layer} gave {value} to expert {expert} for token {token}: the \
         weights or the activations before it are not finite"
    )]
    NonFiniteRouting {
        /// Decoder layer.
        layer: usize,
        /// Row of the batch.
        token: usize,
        /// Expert.
        expert: usize,
        /// The logit.
        value: f32,
    },
    /// Logits that are NaN or infinite.
    #[error(
        "the logits of sequence {sequence} at position {position} are not finite: the weights \
         are broken"
    )]
    NonFiniteLogits {
        /// Index among the sequences given.
        sequence: usize,
        /// Position in it.
        position: usize,
    },
    /// An activation sink refused what it received.
    #[error("activation sink: {0}")]
    Sink(#[source] StageError),
    /// The callback that receives experts one by one stopped.
    #[error("cancelled by the caller")]
    Cancelled,
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[source] Box<candle_core::Error>),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(Box::new(error))
    }
}
