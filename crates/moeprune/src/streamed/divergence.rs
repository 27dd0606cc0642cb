//! How far the predictions of two models are from each other.

use candle_core::Tensor;
use moeprune_engine::Progress;
use moeprune_eval::{BoxError, Divergence, DivergenceReport, TokenDivergence};
use moeprune_model::Head;
use rayon::prelude::*;

use super::Streamed;
use crate::Error;

/// Logits that one model makes at a time: a vocabulary is wide. They are held twice for a moment.
pub(crate) const LOGIT_BYTES: usize = 32 << 20;

/// What a model predicts from: its head, and the last layer's outputs for each block.
struct Predictor<'a> {
    head: &'a Head,
    hidden: &'a [Tensor],
}

/// The divergence of `model` from `reference` on the blocks of `model`, given the last layer's outputs of both. The
/// vocabularies must have the same size. Rows of logits are made as many at a time as [`LOGIT_BYTES`] hold.
///
/// # Errors
/// If a head cannot be read, logits are not finite, or `progress` asks to stop.
pub(crate) fn divergence(
    reference: (&Streamed<'_>, &[Tensor]),
    model: (&Streamed<'_>, &[Tensor]),
    progress: &mut dyn Progress,
) -> Result<DivergenceReport, Error> {
    let heads = (reference.0.head()?, model.0.head()?);
    let reference = Predictor { head: &heads.0, hidden: reference.1 };
    let (model, hidden) = model;
    let blocks = model.blocks.blocks();
    let rows = (LOGIT_BYTES / 4 / model.spec.vocab.max(1)).max(1);
    let model = Predictor { head: &heads.1, hidden };
    let mut found = Divergence::default();
    progress.begin("comparing predictions", blocks.len() as u64, "blocks");
    for (number, block) in blocks.iter().enumerate() {
        let mut tokens = Vec::with_capacity(block.len());
        for first in (0..block.len().saturating_sub(1)).step_by(rows) {
            if progress.should_stop() {
                return Err(Error::stopped());
            }
            let last = (first + rows).min(block.len() - 1);
            let logits =
                (reference.logits(number, first..last)?, model.logits(number, first..last)?);
            tokens.append(&mut of_rows(&logits.0, &logits.1, &block[first + 1..=last])?);
        }
        found.add_block(&tokens);
        progress.advance(number as u64 + 1, "");
    }
    progress.end();
    Ok(found.report()?)
}

impl Predictor<'_> {
    /// The logits after some tokens of a block, row after row.
    fn logits(&self, block: usize, tokens: std::ops::Range<usize>) -> Result<Vec<f32>, Error> {
        let hidden = self.hidden.get(block).ok_or_else(|| {
            Error::Request(format!("block {block} has no outputs of the last layer"))
        })?;
        Ok(self.head.finite_logits(hidden, tokens, block)?)
    }
}

/// Each row on its own, so that neither the number of threads nor that of rows changes anything.
fn of_rows(reference: &[f32], model: &[f32], next: &[u32]) -> Result<Vec<TokenDivergence>, Error> {
    let vocab = reference.len() / next.len().max(1);
    let one = |((reference, model), next): ((&[f32], &[f32]), &u32)| {
        TokenDivergence::of(reference, model, *next as usize)
    };
    let rows = reference.par_chunks(vocab.max(1)).zip(model.par_chunks(vocab.max(1)));
    let found: Option<Vec<TokenDivergence>> = rows.zip(next).map(one).collect();
    found.ok_or_else(|| {
        let problem =
            BoxError::from("the two have different vocabularies, or one has no row for a token");
        Error::stage("divergence", None)(problem)
    })
}
