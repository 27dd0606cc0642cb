//! What is refitted: a layer's residual and its experts, in `f32` or `f64`.

use std::ops::Range;

use moeprune_core::{RepairStore, StageError, SurvivingExpert};
use moeprune_linalg::Real;
use rayon::prelude::*;

use crate::Error;

/// Tokens whose errors are summed by one thread.
const TOKENS: usize = 1024;

/// A layer that lost experts, as [`LayerToRepair`](moeprune_core::LayerToRepair), in either type.
#[expect(missing_debug_implementations, reason = "millions of numbers")]
pub struct Layer<'a, T> {
    /// Decoder layer.
    pub layer: usize,
    /// Numbers per token of what experts write.
    pub width: usize,
    /// Per token what is missing of the layer's output: `[tokens, width]`, row-major.
    pub residual: &'a mut [T],
    /// How much an error at a token counts, `[tokens]`.
    pub token_weights: &'a [T],
    /// Tokens before this one are fitted; those from it on are held out.
    pub fitted: usize,
    /// The experts that stay, by ascending index.
    pub experts: &'a [SurvivingExpert],
    /// Their activations and weights.
    pub store: &'a dyn Store<T>,
}

/// Where the experts' activations and weights are, as [`RepairStore`], in either type.
pub trait Store<T>: Sync {
    /// Gated hidden activations of some of an expert's tokens: `[rows, features]`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<T>, StageError>;

    /// The expert's weights as they are now, `[width, features]`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn weights(&self, expert: usize) -> Result<Vec<T>, StageError>;

    /// The expert's weights before any was replaced.
    ///
    /// # Errors
    /// If they cannot be read.
    fn original_weights(&self, expert: usize) -> Result<Vec<T>, StageError>;

    /// Replaces an expert's weights, and returns what they have become in the type they are stored in.
    ///
    /// # Errors
    /// If they do not fit that type or cannot be written.
    fn replace(&self, expert: usize, weights: Vec<T>) -> Result<Vec<T>, StageError>;

    /// Bits per weight of an expert whose new weights are stored as codes with scales; `None` if each is a
    /// number by itself.
    fn code_bits(&self, expert: usize) -> Option<u32> {
        let _ = expert;
        None
    }

    /// As [`replace`](Self::replace), where later columns are to make up for the rounding of those before
    /// them; `carry` as in [`RepairStore::replace_carrying`].
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    fn replace_carrying(
        &self,
        expert: usize,
        weights: Vec<T>,
        carry: &[f32],
    ) -> Result<Vec<T>, StageError> {
        let _ = carry;
        self.replace(expert, weights)
    }

    /// Keeps numbers of an expert, until the next that are kept of it.
    ///
    /// # Errors
    /// If they cannot be written.
    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError>;

    /// What was last kept of an expert, `None` if it was forgotten.
    ///
    /// # Errors
    /// If it cannot be read.
    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError>;
}

/// A [`RepairStore`] as a store of `f32`.
pub(crate) struct Single<'a>(pub(crate) &'a dyn RepairStore);

impl Store<f32> for Single<'_> {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError> {
        self.0.activations(expert, rows)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        self.0.weights(expert)
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        self.0.original_weights(expert)
    }

    fn replace(&self, expert: usize, weights: Vec<f32>) -> Result<Vec<f32>, StageError> {
        self.0.replace(expert, weights)
    }

    fn code_bits(&self, expert: usize) -> Option<u32> {
        self.0.code_bits(expert)
    }

    fn replace_carrying(
        &self,
        expert: usize,
        weights: Vec<f32>,
        carry: &[f32],
    ) -> Result<Vec<f32>, StageError> {
        self.0.replace_carrying(expert, weights, carry)
    }

    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        self.0.keep(expert, numbers)
    }

    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        self.0.kept(expert)
    }
}

impl<T: Real> Layer<'_, T> {
    /// Tokens, held-out ones among them.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.token_weights.len()
    }

    /// The weighted square of what is missing at some tokens, summed in `f64`.
    ///
    /// # Panics
    /// If there are no such tokens.
    #[must_use]
    pub fn error(&self, tokens: Range<usize>) -> f64 {
        let width = self.width.max(1);
        let rows = &self.residual[tokens.start * self.width..tokens.end * self.width];
        let pieces: Vec<f64> = rows
            .par_chunks(TOKENS * width)
            .zip(self.token_weights[tokens].par_chunks(TOKENS))
            .map(|(rows, weights)| {
                let rows = rows.chunks_exact(width).zip(weights);
                rows.map(|(row, weight)| weight.to_f64() * square(row)).sum()
            })
            .collect();
        pieces.into_iter().sum()
    }

    /// Whether all that belongs to tokens is there for the same ones, and experts name tokens that exist.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let (layer, tokens) = (self.layer, self.tokens());
        let expected = tokens.saturating_mul(self.width);
        let shape = |what, expected, got| Err(Error::Shape { layer, what, expected, got });
        if self.residual.len() != expected {
            return shape("numbers in the residual", expected, self.residual.len());
        }
        if self.fitted > tokens {
            return shape("fitted tokens at most", tokens, self.fitted);
        }
        let bad = |weight: &T| !(weight.to_f64() >= 0.0 && weight.to_f64().is_finite());
        if let Some(token) = self.token_weights.iter().position(bad) {
            let value = self.token_weights[token].to_f64();
            return Err(Error::TokenWeight { layer, token, value });
        }
        for (expert, survivor) in self.experts.iter().enumerate() {
            let mut least = 0;
            for &token in &survivor.tokens {
                if (token as usize) < least || token as usize >= tokens {
                    return Err(Error::Token { layer, expert, token, tokens });
                }
                least = token as usize + 1;
            }
        }
        Ok(())
    }
}

/// The sum of squares.
pub(crate) fn square<T: Real>(values: &[T]) -> f64 {
    values.iter().map(|x| x.to_f64() * x.to_f64()).sum()
}
