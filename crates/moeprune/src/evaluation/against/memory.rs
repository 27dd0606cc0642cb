//! What memory it takes to hold two models against each other.

use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, TensorId, bytes_in_words};
use moeprune_engine::{
    AvailableMemory, Error as EngineError, Execution, MemoryNeed, Progress, RunKind, TextSize,
};

use crate::{Error, streamed::LOGIT_BYTES};

/// For everything that is not counted.
const REST: u64 = 300_000_000;

/// The most that is held at a time on the CPU, in bytes: while the reference runs, while the model does beside the
/// reference's outputs, or while the heads of both predict.
fn need(model: &Checkpoint, reference: &Checkpoint, text: TextSize) -> u64 {
    let tokens = text.tokens;
    let outputs = |of: &Checkpoint| tokens * 4 * of.spec().hidden as u64;
    let walk = |of: &Checkpoint| {
        let embedding = of.stored_bytes(TensorId::Embedding) + outputs(of) + REST;
        MemoryNeed::of(of, text, RunKind::Observe).total().max(embedding)
    };
    // As it is stored, and in f32 to be run.
    let head = |of: &Checkpoint| {
        let spec = of.spec();
        let stored = if spec.tied_embeddings { TensorId::Embedding } else { TensorId::LmHead };
        of.stored_bytes(stored) + 4 * (spec.vocab * spec.hidden) as u64
    };
    // A tensor and its numbers, of each model, or of one that has a single row.
    let row = 4 * model.spec().vocab as u64;
    let logits = 4 * row.max(LOGIT_BYTES as u64);
    let predicting = outputs(model) + head(model) + head(reference) + logits + REST;
    walk(reference).max(outputs(reference) + walk(model).max(predicting))
}

/// Says what memory will be needed, and returns where both models run: with the same micro-batches.
///
/// # Errors
/// If that is more than the run may take, or than the device has.
pub(super) fn set_up(
    execution: &Execution,
    (model, reference): (&Checkpoint, &Checkpoint),
    (blocks, tag): (&TokenBlocks, &dyn Fn() -> Result<CorpusTag, EngineError>),
    progress: &mut dyn Progress,
) -> Result<Execution, Error> {
    if !execution.is_on_cpu() {
        let tag = tag()?;
        let execution = execution.for_blocks(reference, &tag, RunKind::Observe, progress)?;
        return Ok(execution.for_blocks(model, &tag, RunKind::Observe, progress)?);
    }
    let block = blocks.sequence_len() as u64;
    let size = TextSize { tokens: blocks.tokens(), block };
    let text = (size, "use fewer or shorter blocks (--limit, --seq-len)");
    check_host(execution, (model, reference), text, progress)?;
    Ok(execution.clone())
}

/// Says what memory the CPU will need for a text; if that is too much, what to do.
///
/// # Errors
/// If that is more than the run may take.
pub(crate) fn check_host(
    execution: &Execution,
    (model, reference): (&Checkpoint, &Checkpoint),
    (text, remedy): (TextSize, &str),
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let needed = need(model, reference, text);
    if let Some(allowed) = execution.max_memory().filter(|&allowed| allowed < needed) {
        return Err(Error::Request(format!(
            "holding the two models against each other needs up to {:.1} MB of memory, and --max-memory allows {:.1} \
             MB; {remedy}, or allow more",
            needed as f64 / 1e6,
            allowed as f64 / 1e6
        )));
    }
    let hidden = 4 * text.tokens * (reference.spec().hidden + 2 * model.spec().hidden) as u64;
    let mut line = format!(
        "needs up to {} of memory: {} for the hidden states of both models, the rest for weights in passing",
        bytes_in_words(needed),
        bytes_in_words(hidden)
    );
    if let Some(AvailableMemory { bytes, limit, .. }) = AvailableMemory::now(execution.max_memory())
    {
        line += &match bytes < needed {
            false => format!("; {limit} has {} left", bytes_in_words(bytes)),
            true => format!("\nwarning: {limit} has {} left; {remedy}", bytes_in_words(bytes)),
        };
    }
    progress.note(&line);
    Ok(())
}
