//! Calibration text cut into blocks for one model.

use std::path::Path;

use moeprune_capture::{
    CalibrationFile, CalibrationFormat, TokenBlocks, open_calibration, token_blocks,
};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, Observation};

use tokenizers::Tokenizer;

use crate::{Error, Progress, Recipe, finite::Finite, load_tokenizer};

/// Blocks of tokens, and where they came from.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Calibration {
    /// The blocks.
    pub blocks: TokenBlocks,
    /// The file they were drawn from, and how.
    pub tag: CorpusTag,
}

impl Calibration {
    /// Draws the blocks that the recipe asks for from a text, JSON-lines or token file.
    ///
    /// # Errors
    /// If the file cannot be read or is too short, or the tokenizer is missing or does not fit
    /// the model.
    pub fn read(path: &Path, checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Self, Error> {
        let spec = checkpoint.spec();
        let file = open_calibration(path)?;
        let tokenizer = tokenizer_for(&file, checkpoint)?;
        let options = recipe.calibration.sampling(spec.max_positions);
        let blocks = token_blocks(&file, tokenizer.as_ref(), spec.vocab, &options)?;
        let tag = file.tag(&blocks)?;
        Ok(Self { blocks, tag })
    }
}

/// The model's tokenizer, unless the file holds token ids.
pub(crate) fn tokenizer_for(
    file: &CalibrationFile,
    checkpoint: &Checkpoint,
) -> Result<Option<Tokenizer>, Error> {
    match file.format() {
        CalibrationFormat::TokenLines => Ok(None),
        _ => load_tokenizer(checkpoint).map(Some),
    }
}

/// Runs the model over calibration blocks once and sums what it does.
///
/// # Errors
/// If the model cannot be run.
pub fn observe(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    progress: &mut dyn Progress,
) -> Result<Observation, Error> {
    let spec = checkpoint.spec();
    progress.begin("observing", calibration.tag.tokens(), "tokens");
    let observation = moeprune_capture::observe(
        &Finite(checkpoint),
        spec,
        &calibration.blocks,
        &candle_core::Device::Cpu,
        calibration.tag.clone(),
        checkpoint.fingerprint()?,
        &mut |at| {
            // A token is done when it went through all layers.
            let through = at.layer as u64 * at.tokens_total + at.tokens_done;
            progress.advance(
                through / at.layers.max(1) as u64,
                &format!("layer {}/{}", at.layer + 1, at.layers),
            );
        },
    )?;
    progress.end();
    Ok(observation)
}
