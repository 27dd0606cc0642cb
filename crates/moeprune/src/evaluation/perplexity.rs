//! Perplexity of a text.

use moeprune_checkpoint::Checkpoint;
use moeprune_engine::{ModelText, TextFiles, note_of_length};
use moeprune_eval::{BoxError, Nll, PerplexityReport, perplexity, score_each};

use super::{Evaluation, STOPPED, answering::NativeModel};
use crate::{Error, Progress};

/// Perplexity of a text, block by block.
pub(super) fn of_text(
    checkpoint: &Checkpoint,
    what: &Evaluation<'_>,
    native: &mut NativeModel<'_>,
    progress: &mut dyn Progress,
) -> Result<PerplexityReport, Error> {
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

/// That a block has a token to predict.
pub(super) fn check_block(sequence_len: Option<usize>) -> Result<(), Error> {
    match sequence_len {
        Some(0 | 1) => Err(Error::Request(
            "the first token of a block is given and the others are predicted: a block needs two (--seq-len)".into(),
        )),
        _ => Ok(()),
    }
}
