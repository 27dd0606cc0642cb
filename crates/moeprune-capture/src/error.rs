//! What can go wrong between a calibration file and an observation.

use std::{io, ops::Range, path::PathBuf};

use moeprune_core::{LinearId, StageError};

/// A calibration text, a forward pass or an observation file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A calibration source failed.
    #[error("{name}: {source}")]
    Source {
        /// What the source calls itself.
        name: String,
        /// What it said.
        source: StageError,
    },
    /// Text, but no tokenizer to read it with.
    #[error(
        "{name} is text and no tokenizer was given; put the model's tokenizer.json beside its \
         weights, or calibrate on lines of `{{\"tokens\": [...]}}`"
    )]
    NoTokenizer {
        /// The calibration text.
        name: String,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer failed between {first} and {last}: {source}")]
    Tokenize {
        /// Where the first document of the batch is.
        first: String,
        /// Where the last one is.
        last: String,
        /// What it said.
        source: StageError,
    },
    /// A token id that the embedding has no row for.
    #[error(
        "{at}: token id {id}{} does not fit the model, whose embedding has {vocab} rows{}",
        token.as_ref().map(|token| format!(" ({token:?})")).unwrap_or_default(),
        if token.is_some() { "; take that token out of the text, or use the model's own tokenizer" } else { "" }
    )]
    TokenId {
        /// The text, and which line or document of it.
        at: String,
        /// The id.
        id: u32,
        /// The token's text, where a tokenizer made it of the text.
        token: Option<String>,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// More blocks than any memory holds.
    #[error(
        "{samples} samples of {sequence_len} tokens are more than can be held; ask for fewer \
         (128 samples of 2048 tokens are usual)"
    )]
    TooMuchAsked {
        /// Blocks asked for.
        samples: usize,
        /// Tokens in each.
        sequence_len: usize,
    },
    /// More tokens than memory should hold, and no room for them in a temporary file.
    #[error(transparent)]
    Tokens(#[from] crate::TokenRowError),
    /// A number or length of blocks that cannot be drawn.
    #[error("cannot draw {samples} blocks of {sequence_len} tokens; ask for at least one of one")]
    NothingAsked {
        /// Blocks asked for.
        samples: usize,
        /// Tokens per block.
        sequence_len: usize,
    },
    /// Less text than one block needs.
    #[error(
        "calibration text too short: {name} has {have} tokens and a block of {sequence_len} needs \
         {need}; use more text or a smaller --seq-len"
    )]
    TooShort {
        /// The calibration text.
        name: String,
        /// Tokens there are.
        have: usize,
        /// Tokens it takes.
        need: usize,
        /// Tokens per block.
        sequence_len: usize,
    },
    /// A file of ready-made blocks has fewer than asked for.
    #[error(
        "{name} holds {have} blocks of {sequence_len} tokens and {need} were asked for; use more \
         text or --samples {have}"
    )]
    TooFewBlocks {
        /// The calibration text.
        name: String,
        /// Blocks there are.
        have: usize,
        /// Blocks asked for.
        need: usize,
        /// Tokens per block.
        sequence_len: usize,
    },
    /// Ready-made blocks that are not all of one length.
    #[error("block {block} has {got} tokens where the first has {expected}; blocks must be equal")]
    UnequalBlocks {
        /// Which block, from 0.
        block: usize,
        /// Length of the first.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A forward pass failed.
    #[error("layer {layer}: {source}")]
    Forward {
        /// Decoder layer.
        layer: usize,
        /// Why.
        source: Box<moeprune_model::Error>,
    },
    /// The embedding failed, or a layer whose number is not known here.
    #[error(transparent)]
    Model(Box<moeprune_model::Error>),
    /// A layer the model does not have.
    #[error("there is no layer {layer} in a model of {layers} layers")]
    NoSuchLayer {
        /// Layer asked for.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A forward pass reported something that does not fit the model's specification.
    #[error("layer {layer}: {what}: expected {expected}, got {got}")]
    Report {
        /// Decoder layer.
        layer: usize,
        /// What was reported.
        what: String,
        /// What the specification asks for.
        expected: String,
        /// What came.
        got: String,
    },
    /// Values reported by a forward pass could not be read.
    #[error("layer {layer}: cannot read {what}: {source}")]
    Values {
        /// Decoder layer.
        layer: usize,
        /// What was reported.
        what: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// The routing sums of a layer contradict each other.
    #[error(
        "layer {layer}: routing sums `{row}`: expected {expected}, got {got}; this is a defect of the \
         forward pass"
    )]
    Routing {
        /// Decoder layer.
        layer: usize,
        /// Which of the sums.
        row: &'static str,
        /// What the others ask for.
        expected: String,
        /// What was summed.
        got: String,
    },
    /// An activation overflowed.
    #[error(
        "layer {layer}: the inputs of {site} are not finite; compute in a wider type, and check \
         that the checkpoint is sound"
    )]
    InputNotFinite {
        /// Decoder layer.
        layer: usize,
        /// Linear whose input it is.
        site: LinearId,
    },
    /// An expert's output overflowed.
    #[error(
        "layer {layer}: the outputs of expert {expert} are not finite; compute in a wider type, \
         and check that the checkpoint is sound"
    )]
    OutputNotFinite {
        /// Decoder layer.
        layer: usize,
        /// The expert.
        expert: usize,
    },
    /// The caller asked the run to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Something that is not an observation file, or a broken one.
    #[error("{} is not an observation that can be read: {reason}", path.display())]
    ObservationFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nothing to merge.
    #[error("there is no part of an observation to merge")]
    NoParts,
    /// Parts of different runs.
    #[error(
        "{} is not of the run that {} is of: its {difference}; merge parts of one run only",
        part.display(), first.display()
    )]
    ForeignPart {
        /// The part.
        part: PathBuf,
        /// The first part.
        first: PathBuf,
        /// What is different, as text.
        difference: String,
    },
    /// Blocks that are in two parts.
    #[error("{}, are both of blocks {} to {}; merge each part once, of one number of parts", files, blocks.start + 1, blocks.end)]
    PartTwice {
        /// The two files and which parts they are, as text.
        files: String,
        /// The blocks, from 0.
        blocks: Range<usize>,
    },
    /// One file that is named twice.
    #[error("{} is given twice; merge each part once", path.display())]
    SamePart {
        /// The file.
        path: PathBuf,
    },
    /// Blocks that are in no part.
    #[error("of {total} blocks these are missing: {missing}; observe them, and merge all parts")]
    MissingParts {
        /// Which, as text.
        missing: String,
        /// Blocks in all.
        total: usize,
    },
    /// Something that is not a part of an observation, or a broken one.
    #[error("{} is not a part of an observation that can be read: {reason}", path.display())]
    PartFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of an observation that does not hold what it must.
    #[error("{}: tensor `{tensor}`: expected {expected}, got {got}", path.display())]
    ObservationTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it must hold.
        expected: String,
        /// What it holds.
        got: String,
    },
}

impl From<moeprune_model::Error> for Error {
    fn from(error: moeprune_model::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

impl Error {
    /// What a calibration source said; its own errors of this type are passed on as they are.
    pub(crate) fn of_source(name: &str, source: StageError) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => *error,
            Err(source) => Self::Source { name: name.to_owned(), source },
        }
    }
}
