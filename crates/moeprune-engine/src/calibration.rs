//! Calibration text cut into blocks for one model.

mod arguments;
mod chat;
mod files;
mod repair;
mod text;
mod words;

pub use files::{ChatOptions, TextFiles};
pub use repair::{OtherText, RepairBlocks, RepairCalibration};
pub use text::ModelText;
pub use words::{read_in_words, warnings_of_text};

use words::warnings_of_draw;

use moeprune_capture::{SamplingOptions, TokenBlocks};
use moeprune_core::{CorpusTag, ModelSpec};
use moeprune_model::check_runnable;

use crate::{Error, Model};

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
    note_of_streamed_length(asked_len(sampling), model.spec())
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

    /// What was read and drawn, and what is to be known of it, a line each. That blocks are
    /// [shorter](shortened) than asked for can be said before.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let others = self.repair.iter().flat_map(|repair| repair.texts.iter().skip(1));
        let mut notes = Vec::new();
        for tag in std::iter::once(&self.tag).chain(others.map(|text| &text.tag)) {
            notes.extend(read_in_words(tag));
            notes.extend(warnings_of_draw(tag));
        }
        notes
    }

    /// Draws the blocks that are asked for from a text.
    ///
    /// # Errors
    /// If the model cannot be run, a file cannot be read or all are too short, or the tokenizer is missing or does
    /// not fit the model.
    pub fn read<'a>(
        text: impl Into<TextFiles<'a>>,
        model: &dyn Model,
        sampling: &impl Sampling,
    ) -> Result<Self, Error> {
        Ok(Self::read_beside(text, model, sampling, 0)?.0)
    }

    /// [`read`](Self::read), and beside that at most `beside` blocks that share no token with these: none of a
    /// text that is too short for them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_beside<'a>(
        text: impl Into<TextFiles<'a>>,
        model: &dyn Model,
        sampling: &impl Sampling,
        beside: usize,
    ) -> Result<(Self, TokenBlocks), Error> {
        let spec = model.spec();
        check_runnable(spec)?;
        let text = ModelText::open(text.into(), model)?;
        let options = sampling.options(spec.longest_streamed());
        let (blocks, [beside]) = text.blocks_in_groups(&options, [beside])?;
        if blocks.blocks().is_empty() {
            return Err(no_block());
        }
        let tag = text.tag(&blocks, asked_len(sampling))?;
        Ok((Self { blocks, tag, repair: None }, beside))
    }
}

/// Tokens per block that are asked for, whether the model takes so many or not.
fn asked_len(sampling: &impl Sampling) -> usize {
    sampling.options(usize::MAX).sequence_len
}

fn no_block() -> Error {
    Error::Request("a calibration needs at least one block: raise --samples".into())
}
