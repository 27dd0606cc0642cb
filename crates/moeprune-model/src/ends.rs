//! The two ends of a model: embedding and head.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use moeprune_core::{ModelSpec, TensorId, TensorSource};

use crate::{
    Compute, Error,
    exponential::log_sum_exp,
    linear::{Linear, Weights},
    norm::RmsNorm,
    ops,
};

/// Rows of logits that exist at once: a vocabulary is wide.
const LOGIT_ROWS: usize = 256;

/// Logits of some sequences that exist at once: 32 MiB.
const LOGITS: usize = 8 << 20;

/// The table of token embeddings, kept in the type it is stored in.
#[derive(Debug)]
pub struct Embedding {
    table: Tensor,
    vocab: usize,
    dtype: DType,
    multiplier: f64,
}

impl Embedding {
    /// Reads the table; what it gives is in the type that is computed in.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Shape`].
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let weights = Weights { source, compute };
        let table = weights.stored(TensorId::Embedding, &[spec.vocab, spec.hidden])?;
        let multiplier = spec.multipliers.embedding;
        Ok(Self { table, vocab: spec.vocab, dtype: compute.dtype(), multiplier })
    }

    /// The embeddings of `tokens`, `[tokens, hidden]`. A layer wants `[batch, seq, hidden]`:
    /// reshape it.
    ///
    /// # Errors
    /// [`Error::Token`] for a token outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor, Error> {
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= self.vocab) {
            return Err(Error::Token { token, vocab: self.vocab });
        }
        let index = Tensor::from_slice(tokens, tokens.len(), self.table.device())?;
        ops::scaled(self.table.index_select(&index, 0)?.to_dtype(self.dtype)?, self.multiplier)
    }
}

/// The final norm and the output head.
#[derive(Debug)]
pub struct Head {
    norm: RmsNorm,
    output: Linear,
    /// What is added to logits.
    bias: Option<Tensor>,
    multiplier: f64,
    /// Logits become `cap · tanh(logits / cap)`.
    cap: Option<f64>,
    hidden: usize,
    vocab: usize,
    device: Device,
}

impl Head {
    /// Reads the norm and the head, which is the embedding when the model ties them.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Shape`].
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let weights = Weights { source, compute };
        let output = if spec.tied_embeddings { TensorId::Embedding } else { TensorId::LmHead };
        Ok(Self {
            norm: RmsNorm::of_model(weights, TensorId::FinalNorm, spec.hidden, spec)?,
            output: weights.linear(&[(output, spec.vocab)], spec.hidden)?,
            bias: match spec.head_bias {
                true => Some(weights.vector(TensorId::LmHeadBias, spec.vocab)?),
                false => None,
            },
            multiplier: spec.multipliers.logits,
            cap: spec.logit_cap,
            hidden: spec.hidden,
            vocab: spec.vocab,
            device: compute.device().clone(),
        })
    }

    /// The final norm of the last layer's output, same shape.
    ///
    /// # Errors
    /// If the last dimension is not the model's width.
    pub fn norm(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        if hidden.dims().last() != Some(&self.hidden) {
            return Err(Error::HiddenShape { hidden: self.hidden, got: hidden.dims().to_vec() });
        }
        self.norm.forward(hidden)
    }

    /// Sum of `−ln p(token | those before)`, in nats, over a block, and the number of tokens predicted,
    /// given the last layer's output for it, `[tokens, hidden]`. `sequence` is for errors.
    ///
    /// # Errors
    /// If the shape does not fit, or logits are not finite.
    pub fn negative_log_likelihood(
        &self,
        hidden: &Tensor,
        block: &[u32],
        sequence: usize,
    ) -> Result<(f64, usize), Error> {
        let predicted = block.len().saturating_sub(1);
        let mut sum = 0.0;
        for first in (0..predicted).step_by(LOGIT_ROWS) {
            let rows = LOGIT_ROWS.min(predicted - first);
            let logits = self.finite_logits(hidden, first..first + rows, sequence)?;
            for (row, &next) in logits.chunks_exact(self.vocab).zip(&block[first + 1..]) {
                let next = row
                    .get(next as usize)
                    .ok_or(Error::Token { token: next, vocab: self.vocab })?;
                sum += log_sum_exp(row) - f64::from(*next);
            }
        }
        Ok((sum, predicted))
    }

    /// The logits after some tokens of a block, a row of the vocabulary after the other, given the last layer's output for
    /// it, `[tokens, hidden]`. `sequence` is for errors.
    ///
    /// # Errors
    /// If the shape does not fit, there are fewer tokens, or logits are not finite.
    pub fn finite_logits(
        &self,
        hidden: &Tensor,
        tokens: Range<usize>,
        sequence: usize,
    ) -> Result<Vec<f32>, Error> {
        let hidden = hidden.narrow(0, tokens.start, tokens.len())?;
        let hidden = hidden.to_device(&self.device)?;
        let logits = ops::to_vec(&self.logits(&hidden)?)?;
        check_logits(&logits, self.vocab, |row| (sequence, tokens.start + row))?;
        Ok(logits)
    }

    /// Rows of logits of several sequences that exist at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        (LOGITS / self.vocab.max(1)).max(1)
    }

    /// The logits of the last layer's output: `[…, hidden]` to `[…, vocab]`, norm included.
    ///
    /// # Errors
    /// If the last dimension is not the model's width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let normed = self.norm(hidden)?;
        let mut shape = normed.dims().to_vec();
        let logits = self.output.forward(&normed.reshape(((), self.hidden))?)?;
        let logits = match &self.bias {
            None => logits,
            Some(bias) => ops::add_to_rows(&logits, bias)?,
        };
        let logits = ops::scaled(logits, self.multiplier)?;
        let logits = match self.cap {
            None => logits,
            Some(cap) => ops::capped(&logits, cap)?,
        };
        if let Some(last) = shape.last_mut() {
            *last = self.vocab;
        }
        Ok(logits.reshape(shape)?)
    }
}

/// `place` gives the sequence and position of a row.
pub(crate) fn check_logits(
    logits: &[f32],
    vocab: usize,
    place: impl Fn(usize) -> (usize, usize),
) -> Result<(), Error> {
    // Zero times a value that is not finite is NaN, and one NaN makes the sum NaN.
    if logits.iter().map(|v| v * 0.0).sum::<f32>() == 0.0 {
        return Ok(());
    }
    let bad = logits.iter().position(|v| !v.is_finite()).unwrap_or(0);
    let (sequence, position) = place(bad / vocab.max(1));
    Err(Error::NonFiniteLogits { sequence, position })
}
