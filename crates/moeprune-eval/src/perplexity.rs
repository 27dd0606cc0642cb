//! How surprised a model is by a text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BoxError, Error};

/// Predicts tokens. Implement it for anything that runs a model.
///
/// [`perplexity`] calls [`negative_log_likelihood`](Self::negative_log_likelihood) once per batch of
/// blocks, in order and never concurrently. Each block is a separate text: nothing is remembered
/// from one to the next.
///
/// ```
/// use moeprune_eval::{BoxError, LanguageModel, Nll, perplexity, token_blocks};
///
/// /// Thinks every token of its vocabulary equally likely.
/// struct Uniform {
///     vocabulary: u32,
/// }
///
/// impl LanguageModel for Uniform {
///     fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
///         let one = f64::from(self.vocabulary).ln();
///         let predicted = |block: &&[u32]| Nll::new(one * (block.len() - 1) as f64, block.len() - 1);
///         Ok(blocks.iter().map(predicted).collect())
///     }
/// }
///
/// let blocks = token_blocks(&[3, 1, 4, 1, 5, 9, 2, 6], 4)?;
/// let report = perplexity(&mut Uniform { vocabulary: 10 }, &blocks, 1)?;
/// assert_eq!(report.tokens, 6); // the first token of a block is given, not predicted
/// assert!((report.perplexity - 10.0).abs() < 1e-12);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
pub trait LanguageModel {
    /// For each block, the summed negative natural logarithm of the probability of every token
    /// given those before it in the block, in nats, and how many tokens were predicted: one less
    /// than the block has, or all of them where the model starts from its own first token.
    ///
    /// # Errors
    ///
    /// Any failure of the model. It ends the measurement and is passed on as the source of
    /// [`Error::Score`].
    fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError>;
}

impl<M: LanguageModel + ?Sized> LanguageModel for &mut M {
    fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
        (**self).negative_log_likelihood(blocks)
    }
}

impl<M: LanguageModel + ?Sized> LanguageModel for Box<M> {
    fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
        (**self).negative_log_likelihood(blocks)
    }
}

/// The negative log-likelihood of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Nll {
    /// Summed over the predicted tokens, in nats.
    pub sum: f64,
    /// How many tokens were predicted.
    pub tokens: usize,
}

impl Nll {
    /// A sum of nats over a number of predicted tokens.
    pub fn new(sum: f64, tokens: usize) -> Self {
        Self { sum, tokens }
    }
}

/// What [`perplexity`] found, ready to be written as JSON.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PerplexityReport {
    /// How many blocks were scored.
    pub blocks: usize,
    /// How many tokens were predicted.
    pub tokens: usize,
    /// The mean negative log-likelihood of a predicted token, in nats.
    pub nll: f64,
    /// e to the power of `nll`; the largest finite number where that overflows, for JSON has no
    /// infinity.
    pub perplexity: f64,
}

/// Cuts a text into the blocks its perplexity is measured on: next to each other, without overlap,
/// the rest that does not fill a block dropped. This is how the pruning literature reports
/// WikiText-2, with 2048 tokens per block; figures for other lengths do not compare.
///
/// ```
/// # use moeprune_eval::token_blocks;
/// assert_eq!(token_blocks(&[1, 2, 3, 4, 5], 2)?, [[1, 2], [3, 4]]);
/// assert!(token_blocks(&[1, 2, 3], 4).is_err());
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
///
/// # Errors
///
/// If the text does not fill one block, or a block has fewer than two tokens.
pub fn token_blocks(tokens: &[u32], length: usize) -> Result<Vec<&[u32]>, Error> {
    if length < 2 || tokens.len() < length {
        return Err(Error::BlockLength { tokens: tokens.len(), length });
    }
    Ok(tokens.chunks_exact(length).collect())
}

/// Measures a model on blocks of token ids, `batch` of them at a time.
///
/// The mean is taken over all predicted tokens, not over blocks, so blocks may differ in length.
/// Sums are added in `f64` in the order of the blocks: the batch size does not change the result.
///
/// # Errors
///
/// If there are no blocks, if `batch` is 0, if the model fails or returns a wrong number of
/// results, if a block's sum is not finite, or if no token was predicted.
pub fn perplexity(
    model: &mut dyn LanguageModel,
    blocks: &[&[u32]],
    batch: usize,
) -> Result<PerplexityReport, Error> {
    if batch == 0 {
        return Err(Error::Zero { what: "the batch size", hint: "" });
    }
    let (mut sum, mut tokens, mut scored) = (0.0, 0, 0);
    for batch in blocks.chunks(batch) {
        for nll in score(model, batch, scored)? {
            if !nll.sum.is_finite() {
                return Err(Error::NotFinite { block: scored, value: nll.sum });
            }
            sum += nll.sum;
            tokens += nll.tokens;
            scored += 1;
        }
    }
    if tokens == 0 {
        return Err(Error::NoTokens);
    }
    let nll = sum / tokens as f64;
    Ok(PerplexityReport { blocks: scored, tokens, nll, perplexity: nll.exp().min(f64::MAX) })
}

fn score(model: &mut dyn LanguageModel, batch: &[&[u32]], first: usize) -> Result<Vec<Nll>, Error> {
    let last = first + batch.len() - 1;
    let results = model.negative_log_likelihood(batch).map_err(|source| Error::Score {
        first,
        last,
        source,
    })?;
    if results.len() != batch.len() {
        return Err(Error::NllCount { blocks: batch.len(), results: results.len() });
    }
    Ok(results)
}

/// Makes a [`LanguageModel`] of a closure that scores one block.
///
/// ```
/// # use moeprune_eval::{Nll, perplexity, score_each};
/// let mut certain = score_each(|block| Ok(Nll::new(0.0, block.len() - 1)));
/// assert_eq!(perplexity(&mut certain, &[&[1, 2, 3], &[4, 5]], 8)?.perplexity, 1.0);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
pub fn score_each<F>(score: F) -> ScoreEach<F>
where
    F: FnMut(&[u32]) -> Result<Nll, BoxError>,
{
    ScoreEach(score)
}

/// The [`LanguageModel`] made by [`score_each`].
pub struct ScoreEach<F>(F);

impl<F> LanguageModel for ScoreEach<F>
where
    F: FnMut(&[u32]) -> Result<Nll, BoxError>,
{
    fn negative_log_likelihood(&mut self, blocks: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
        blocks.iter().map(|block| (self.0)(block)).collect()
    }
}

impl<F> fmt::Debug for ScoreEach<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScoreEach").finish_non_exhaustive()
    }
}
