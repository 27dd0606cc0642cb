//! Calibration text cut into blocks for one model.

mod repair;

pub use repair::{OtherText, RepairBlocks, RepairCalibration};

use std::path::Path;

use moeprune_capture::{
    CalibrationFile, CalibrationFormat, SamplingOptions, TokenBlocks, open_calibration,
    token_blocks_apart,
};
use moeprune_core::{CorpusTag, ModelSpec};
use moeprune_model::check_runnable;
use tokenizers::Tokenizer;

use crate::{Error, Model, load_tokenizer};

/// What says which part of a text is drawn.
pub trait Sampling {
    /// The options for a model that is run on at most `max_positions` tokens.
    #[must_use]
    fn options(&self, max_positions: usize) -> SamplingOptions;
}

impl Sampling for SamplingOptions {
    fn options(&self, max_positions: usize) -> SamplingOptions {
        Self { sequence_len: self.sequence_len.min(max_positions), ..*self }
    }
}

/// The note about blocks that are shorter than asked for, because the model takes no longer ones layer by
/// layer.
#[must_use]
pub fn shortened(model: &dyn Model, sampling: &impl Sampling) -> Option<String> {
    note_of_streamed_length(sampling.options(usize::MAX).sequence_len, model.spec())
}

/// The note about blocks of `asked` tokens that are run layer by layer; none if they fit.
#[must_use]
pub fn note_of_streamed_length(asked: usize, spec: &ModelSpec) -> Option<String> {
    let (most, positions) = (spec.longest_streamed(), spec.max_positions);
    if most == positions {
        return note_of_length(asked, positions);
    }
    (asked > most).then(|| {
        format!(
            "note: blocks have {most} tokens, not the {asked} that were asked for: in longer ones layers \
             see keys that a layer before them selected, which is not handed on where a model is run \
             layer by layer"
        )
    })
}

/// The note about blocks of `asked` tokens for a model that takes at most `most`; none if they fit.
#[must_use]
pub fn note_of_length(asked: usize, most: usize) -> Option<String> {
    (asked > most).then(|| {
        format!(
            "note: blocks have {most} tokens, not the {asked} that were asked for: the model has no \
             more positions"
        )
    })
}

/// Blocks of tokens, and where they came from.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Calibration {
    /// The blocks.
    pub blocks: TokenBlocks,
    /// The file they were drawn from, and how.
    pub tag: CorpusTag,
    /// What a repair is fitted to and measured on beside the blocks; `None`: to the blocks, and on
    /// nothing.
    pub repair: Option<RepairCalibration>,
}

impl Calibration {
    /// What a repair is fitted to and measured on.
    #[must_use]
    pub fn for_repair(&self) -> RepairCalibration {
        self.repair.clone().unwrap_or_else(|| RepairCalibration::of(self))
    }

    /// Draws the blocks that are asked for from a text, JSON-lines or token file.
    ///
    /// # Errors
    /// If the model cannot be run, the file cannot be read or is too short, or the tokenizer is missing or does not fit
    /// the model.
    pub fn read(path: &Path, model: &dyn Model, sampling: &impl Sampling) -> Result<Self, Error> {
        Ok(Self::read_beside(path, model, sampling, 0)?.0)
    }

    /// [`read`](Self::read), and beside that at most `beside` blocks that share no token with these: none of a
    /// text that is too short for them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_beside(
        path: &Path,
        model: &dyn Model,
        sampling: &impl Sampling,
        beside: usize,
    ) -> Result<(Self, TokenBlocks), Error> {
        let spec = model.spec();
        check_runnable(spec)?;
        let file = open_calibration(path)?;
        let tokenizer = tokenizer_for(&file, model)?;
        let options = sampling.options(spec.longest_streamed());
        let (blocks, beside) =
            token_blocks_apart(&file, tokenizer.as_ref(), spec.vocab, &options, beside)?;
        if blocks.blocks().is_empty() {
            return Err(no_block());
        }
        let tag = file.tag(&blocks)?;
        Ok((Self { blocks, tag, repair: None }, beside))
    }
}

fn no_block() -> Error {
    Error::Request("a calibration needs at least one block: raise --samples".into())
}

/// The model's tokenizer, unless the file holds token ids.
///
/// # Errors
/// As [`load_tokenizer`].
pub fn tokenizer_for(
    file: &CalibrationFile,
    model: &dyn Model,
) -> Result<Option<Tokenizer>, Error> {
    match file.format() {
        CalibrationFormat::TokenLines => Ok(None),
        _ => load_tokenizer(model).map(Some),
    }
}
