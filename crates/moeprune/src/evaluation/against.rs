//! A pruned model held against the one that it was made of: how far its predictions of a text have moved.

pub(crate) mod memory;
mod vocabularies;

use std::path::Path;

use moeprune_checkpoint::Checkpoint;
use moeprune_engine::{Execution, Finite, ModelText, TextFiles, note_of_streamed_length};
use moeprune_eval::DivergenceReport;
use moeprune_model::check_runnable;

use super::perplexity::check_block;
use crate::{
    Error, Progress,
    streamed::{Streamed, divergence},
};

/// What a model is held against, and on which text.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "options")]
pub struct Against<'a> {
    /// The reference, as a rule the unpruned model.
    pub reference: &'a Checkpoint,
    /// Text, in any form that calibration text may have.
    pub data: &'a Path,
    /// Only the first so many blocks.
    pub limit: Option<usize>,
    /// Tokens in a block; the models' maximum, at most 2048, by default.
    pub sequence_len: Option<usize>,
}

/// Runs two models over the same text, teacher-forced, and compares what they predict after each token: `KL(reference ||
/// model)`, whether both find the same token the likeliest, and the perplexities of both.
///
/// Both are run layer by layer, first the reference, then the model, so that neither has to fit into memory. What is
/// held besides a layer's weights in passing is the hidden states of the text, three times, and at the end both heads;
/// that is said before.
///
/// # Errors
/// If the text or a model cannot be read, a model cannot be run, the two have different vocabularies, the run needs more
/// memory than it may take, or `progress` asks to stop.
pub fn evaluate_against(
    model: &Checkpoint,
    against: Against<'_>,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<DivergenceReport, Error> {
    let Against { reference, data, limit, sequence_len } = against;
    let (of_model, of_reference) = (model.spec(), reference.spec());
    check_runnable(of_reference)?;
    check_runnable(of_model)?;
    check_block(sequence_len)?;
    let reader = vocabularies::reader(model, reference)?;
    let length = of_model.longest_streamed().min(of_reference.longest_streamed());
    let shorter = if of_model.longest_streamed() == length { of_model } else { of_reference };
    let shortened = sequence_len.and_then(|asked| note_of_streamed_length(asked, shorter));
    shortened.iter().for_each(|note| progress.note(note));
    let length = sequence_len.unwrap_or(2048).min(length);
    let text = ModelText::open(TextFiles::from(data), reader)?;
    let blocks = text.blocks_in_order(length)?;
    vocabularies::check_blocks(data, (model, reference), &blocks)?;
    text.notes_in_order(&blocks).iter().for_each(|note| progress.note(note));
    let (blocks, _) = blocks.split_at(limit.unwrap_or(usize::MAX));
    let tag = || text.tag(&blocks, sequence_len.unwrap_or(length));
    let execution = memory::set_up(execution, (model, reference), (&blocks, &tag), progress)?;
    let execution = &execution;
    let (blocks, step) = (&blocks, "running the reference");
    let (source, spec) = (&Finite(reference), of_reference);
    let reference = Streamed { source, spec, blocks, execution, step };
    let of_reference = reference.hidden_on_host(progress)?;
    let (source, spec) = (&Finite(model), of_model);
    let model = Streamed { source, spec, blocks, execution, step: "running the model" };
    let of_model = model.hidden_on_host(progress)?;
    divergence((&reference, &of_reference), (&model, &of_model), progress)
}
