//! Perplexity of a text.

use moeprune_capture::TokenBlocks;
use moeprune_core::ModelSpec;
use moeprune_engine::{
    AnsweringWork, Error as EngineError, ModelText, StreamingRoom, TextFiles, note_of_length,
};
use moeprune_eval::{BoxError, LanguageModel, Nll, PerplexityReport, perplexity, score_each};

use super::{
    Evaluated, Evaluation, NoteEstimate, STOPPED, answering::NativeModel, streaming::announce,
};
use crate::{
    Error, Execution, Progress,
    streamed::{Streamed, likelihood},
};

/// Blocks that are run together at most, layer by layer: so often a run can be stopped for good.
const MOST_TOGETHER: usize = 4096;

/// Perplexity of a text, block by block.
pub(super) fn of_text(
    model: Evaluated<'_>,
    what: &Evaluation<'_>,
    native: &mut NativeModel<'_>,
    (note, progress): (NoteEstimate<'_>, &mut dyn Progress),
) -> Result<PerplexityReport, Error> {
    let checkpoint = model.checkpoint;
    if what.fewshot.is_some() || what.fewshot_data.is_some() {
        return Err(Error::Request("perplexity has no shots; leave --fewshot out".into()));
    }
    check_block(what.sequence_len)?;
    let spec = checkpoint.spec();
    let text = ModelText::open(TextFiles::from(what.data), checkpoint)?;
    let length = what.sequence_len.unwrap_or(2048).min(spec.max_positions);
    let asked = what.sequence_len.and_then(|asked| note_of_length(asked, spec.max_positions));
    asked.iter().for_each(|note| progress.note(note));
    let blocks = text.blocks_in_order(length)?;
    text.notes_in_order(&blocks).iter().for_each(|note| progress.note(note));
    let mut blocks: Vec<&[u32]> = blocks.blocks().iter().map(Vec::as_slice).collect();
    blocks.truncate(what.limit.unwrap_or(usize::MAX));
    if let Some(room) = native.room()? {
        let together = blocks_together(model.spec, &room, length);
        let work = AnsweringWork {
            fewest_passes: blocks.len().div_ceil(together) as u64,
            most_passes: blocks.len().div_ceil(together) as u64,
            tokens_per_pass: (together.min(blocks.len()) * length) as u64,
        };
        announce(model, native, work, (note, &mut *progress))?;
        return layer_by_layer(model, native.execution(), (&blocks, together), progress);
    }
    native.say_need(progress)?;
    let model = native.load()?;
    progress.begin("perplexity", blocks.len() as u64, "blocks");
    let (mut done, mut stopped) = (0, false);
    let mut scorer = score_each(|block: &[u32]| {
        if progress.should_stop() {
            stopped = true;
            return Err(BoxError::from(STOPPED));
        }
        let (sum, tokens) = model.negative_log_likelihood(block)?;
        done += 1;
        progress.advance(done, "");
        Ok(Nll::new(sum, tokens))
    });
    let report = perplexity(&mut scorer, &blocks, 1);
    if stopped {
        return Err(Error::stopped());
    }
    let report = report?;
    progress.end();
    Ok(report)
}

/// How many blocks are run together, layer by layer: as many as have room for their hidden states, of which three are
/// held, in the place of experts.
fn blocks_together(spec: &ModelSpec, room: &StreamingRoom, length: usize) -> usize {
    let block = 3 * 4 * (spec.hidden * length) as u64;
    usize::try_from(room.experts / block.max(1)).unwrap_or(usize::MAX).clamp(1, MOST_TOGETHER)
}

/// The same where experts do not fit: all blocks of a batch go through a layer before the next one is read.
fn layer_by_layer(
    model: Evaluated<'_>,
    execution: &Execution,
    (blocks, together): (&[&[u32]], usize),
    progress: &mut dyn Progress,
) -> Result<PerplexityReport, Error> {
    let mut model = LayerByLayer { model, execution, progress, failed: None };
    let report = perplexity(&mut model, blocks, together);
    match model.failed {
        Some(error) => Err(error),
        None => Ok(report?),
    }
}

/// A model that is read layer by layer for each batch.
struct LayerByLayer<'a> {
    model: Evaluated<'a>,
    execution: &'a Execution,
    progress: &'a mut dyn Progress,
    /// What ended it.
    failed: Option<Error>,
}

impl LanguageModel for LayerByLayer<'_> {
    fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
        let Evaluated { source, spec, .. } = self.model;
        let blocks: Vec<Vec<u32>> = blocks.iter().map(|block| block.to_vec()).collect();
        let found =
            TokenBlocks::new(blocks, spec.vocab).map_err(|e| Error::from(EngineError::from(e)));
        let found = found.and_then(|blocks| {
            let (execution, blocks) = (self.execution, &blocks);
            let streamed = Streamed { source, spec, blocks, execution, step: "perplexity" };
            likelihood(&streamed, &mut *self.progress)
        });
        match found {
            Ok(found) => Ok(found.blocks.iter().map(|&(sum, n)| Nll::new(sum, n)).collect()),
            Err(error) => {
                let message = error.to_string();
                self.failed = Some(error);
                Err(message.into())
            }
        }
    }
}

/// That a block has a token to predict.
pub(super) fn check_block(sequence_len: Option<usize>) -> Result<(), Error> {
    match sequence_len {
        Some(0 | 1) => Err(Error::Request(
            "the first token of a block is given and the others are predicted: a block needs two (--seq-len)".into(),
        )),
        _ => Ok(()),
    }
}
