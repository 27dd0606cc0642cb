//! How far one model's predictions are from another's, token by token of the same text.

use serde::{Deserialize, Serialize};

use crate::{Error, Estimate};

/// How two models predict one token, each given the text's own tokens before it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenDivergence {
    /// `KL(reference || model)`, in nats: what the reference loses where the model stands in for it. At least 0, and 0
    /// for the same logits.
    pub kl: f64,
    /// Whether both find the same token the likeliest, the lowest id among equals.
    pub agrees: bool,
    /// `−ln` of the probability that the reference gives the token that follows, in nats.
    pub reference_nll: f64,
    /// The same of the model.
    pub nll: f64,
}

impl TokenDivergence {
    /// Of the logits of both over one vocabulary, and the id of the token that follows. Nothing if the vocabularies have
    /// different sizes or the id is in neither.
    ///
    /// With `p` and `q` the softmax of each in `f64`, `Σ p ln (p / q)` is summed as `Σ p (q / p − 1 − ln (q / p))`: that is
    /// the same, as both sum up to 1, and has no term below 0, so that nothing cancels where the two are almost the same.
    ///
    /// ```
    /// # use moeprune_eval::TokenDivergence;
    /// let half_and_half = [0.0, 0.0];
    /// let three_to_one = [3.0_f32.ln(), 0.0];
    /// let found = TokenDivergence::of(&half_and_half, &three_to_one, 1).unwrap();
    /// let expected = 0.5 * (0.5 / 0.75_f64).ln() + 0.5 * (0.5 / 0.25_f64).ln();
    /// assert!((found.kl - expected).abs() < 1e-7);
    /// assert!((found.nll - 4.0_f64.ln()).abs() < 1e-7);
    /// ```
    pub fn of(reference: &[f32], model: &[f32], next: usize) -> Option<Self> {
        if reference.len() != model.len() {
            return None;
        }
        let (log_p, log_q) = (LogSoftmax::of(reference), LogSoftmax::of(model));
        let nll = (-log_p.of_logit(*reference.get(next)?), -log_q.of_logit(*model.get(next)?));
        let term = |(p, q): (&f32, &f32)| {
            let (log_p, log_q) = (log_p.of_logit(*p), log_q.of_logit(*q));
            let (p, ratio) = (log_p.exp(), log_q - log_p);
            match ratio.abs() < 0.5 {
                true => p * (ratio.exp_m1() - ratio),
                false => log_q.exp() - p - p * ratio,
            }
        };
        let kl = reference.iter().zip(model).map(term).sum::<f64>().max(0.0);
        let agrees = log_p.likeliest == log_q.likeliest;
        Some(Self { kl, agrees, reference_nll: nll.0, nll: nll.1 })
    }
}

/// What a softmax in `f64` takes from all logits.
struct LogSoftmax {
    log_sum: f64,
    likeliest: usize,
}

impl LogSoftmax {
    fn of(logits: &[f32]) -> Self {
        let (mut likeliest, mut most) = (0, f32::NEG_INFINITY);
        for (token, &logit) in logits.iter().enumerate() {
            if logit > most {
                (likeliest, most) = (token, logit);
            }
        }
        let most = f64::from(most);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
        Self { log_sum: most + sum.ln(), likeliest }
    }

    fn of_logit(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// The predictions of blocks of text, from which a [`DivergenceReport`] is made.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    blocks: Vec<Sums>,
    kl: Vec<f64>,
}

/// Sums over the tokens of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: usize,
    kl: f64,
    agree: f64,
    reference_nll: f64,
    nll: f64,
}

impl Divergence {
    /// Takes in one more block, by the tokens that are predicted in it. One without any is left aside.
    pub fn add_block(&mut self, tokens: &[TokenDivergence]) {
        let mut sums = Sums::default();
        for token in tokens {
            sums.tokens += 1;
            sums.kl += token.kl;
            sums.agree += f64::from(u8::from(token.agrees));
            sums.reference_nll += token.reference_nll;
            sums.nll += token.nll;
            self.kl.push(token.kl);
        }
        if sums.tokens > 0 {
            self.blocks.push(sums);
        }
    }

    /// What all blocks together say.
    ///
    /// # Errors
    /// [`Error::NoTokens`] if no token was predicted.
    pub fn report(mut self) -> Result<DivergenceReport, Error> {
        let tokens = self.kl.len();
        let Some(last) = tokens.checked_sub(1) else { return Err(Error::NoTokens) };
        self.kl.sort_by(f64::total_cmp);
        // The lowest that so many in a hundred do not exceed.
        let at_most = |percent: usize| self.kl[(tokens * percent).div_ceil(100).max(1) - 1];
        let mean = |of: fn(&Sums) -> f64| self.blocks.iter().map(of).sum::<f64>() / tokens as f64;
        let stderr = |of: fn(&Sums) -> f64| {
            let means: Vec<f64> = self.blocks.iter().map(|b| of(b) / b.tokens as f64).collect();
            Estimate::of(&means)?.stderr
        };
        let (nll, reference_nll) = (mean(|b| b.nll), mean(|b| b.reference_nll));
        Ok(DivergenceReport {
            blocks: self.blocks.len(),
            tokens,
            kl: mean(|b| b.kl),
            kl_stderr: stderr(|b| b.kl),
            kl_p50: at_most(50),
            kl_p90: at_most(90),
            kl_p99: at_most(99),
            kl_max: self.kl[last],
            agreement: mean(|b| b.agree),
            agreement_stderr: stderr(|b| b.agree),
            nll,
            perplexity: nll.exp().min(f64::MAX),
            reference_nll,
            reference_perplexity: reference_nll.exp().min(f64::MAX),
            nll_difference_stderr: stderr(|b| b.nll - b.reference_nll),
        })
    }
}

/// How far a model's predictions are from a reference's, ready to be written as JSON. The standard errors are those of
/// means of blocks, each block one draw of all text that there might be; None of a single block.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DivergenceReport {
    /// Blocks of text.
    pub blocks: usize,
    /// Tokens predicted in them.
    pub tokens: usize,
    /// The mean over tokens of `KL(reference || model)`, in nats.
    pub kl: f64,
    /// Its standard error.
    pub kl_stderr: Option<f64>,
    /// The least that half of the tokens do not exceed.
    pub kl_p50: f64,
    /// The least that 90 % of the tokens do not exceed.
    pub kl_p90: f64,
    /// The least that 99 % of the tokens do not exceed.
    pub kl_p99: f64,
    /// That of the token on which they are furthest apart.
    pub kl_max: f64,
    /// The share of tokens before which both find the same token the likeliest.
    pub agreement: f64,
    /// Its standard error.
    pub agreement_stderr: Option<f64>,
    /// The model's mean negative log-likelihood of a token, in nats.
    pub nll: f64,
    /// e to the power of that, or the largest finite number.
    pub perplexity: f64,
    /// The reference's mean negative log-likelihood.
    pub reference_nll: f64,
    /// The reference's perplexity.
    pub reference_perplexity: f64,
    /// The standard error of `nll − reference_nll`, which is smaller than that of either, as both read the same text.
    pub nll_difference_stderr: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight from the definition.
    fn by_definition(reference: &[f32], model: &[f32]) -> f64 {
        let softmax = |logits: &[f32]| {
            let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            logits.iter().map(|&l| f64::from(l).exp() / sum).collect::<Vec<f64>>()
        };
        let (p, q) = (softmax(reference), softmax(model));
        p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
    }

    fn check(reference: &[f32], model: &[f32], agrees: bool) {
        let found = TokenDivergence::of(reference, model, 0).unwrap();
        let expected = by_definition(reference, model);
        assert!((found.kl - expected).abs() < 1e-12 * expected.max(1.0), "{found:?}: {expected}");
        assert_eq!(found.agrees, agrees, "{reference:?} {model:?}");
    }

    #[test]
    fn divergences_of_a_token() {
        check(&[0.0], &[7.0], true);
        check(&[0.0, 1.0], &[1.0, 0.0], false);
        check(&[0.0, 1.0, 2.0], &[5.0, 1.0, 9.0], true);
        check(&[1.0, 1.0, 0.0], &[1.0, 0.0, 1.0], true); // the lowest id among equals
        check(&[-3.5, 12.0, 0.25], &[-3.25, 11.0, 0.5], true);
        check(&[30.0, 0.0], &[0.0, 30.0], false);
    }

    #[test]
    fn a_shift_of_all_logits_is_none() {
        let (a, b) = ([1.0, -2.0, 0.5], [1025.0, 1022.0, 1024.5]);
        let found = TokenDivergence::of(&a, &b, 2).unwrap();
        assert!(found.kl < 1e-25, "{found:?}");
        assert_eq!(TokenDivergence::of(&a, &a, 2).unwrap().kl, 0.0);
    }

    #[test]
    fn small_ones_are_told_apart() {
        // ½ Σ p (δ − δ̄)² to second order: p = ½, δ = ±ε / 2.
        let epsilon = 2.0_f32.powi(-20);
        let found = TokenDivergence::of(&[0.0, 0.0], &[epsilon, 0.0], 0).unwrap().kl;
        let expected = f64::from(epsilon).powi(2) / 8.0;
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }

    #[test]
    fn extremes_are_finite() {
        let far = [f32::MAX, -f32::MAX];
        let found = TokenDivergence::of(&far, &[-f32::MAX, f32::MAX], 0).unwrap();
        assert!(found.kl.is_finite() && found.kl > 1e38 && found.nll.is_finite(), "{found:?}");
        let found = TokenDivergence::of(&[0.0; 3], &[-800.0, 0.0, 0.0], 0).unwrap();
        assert!((found.kl - (800.0 / 3.0 + (2.0_f64 / 3.0).ln())).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn logits_that_do_not_belong_together() {
        assert_eq!(TokenDivergence::of(&[0.0], &[0.0, 1.0], 0), None);
        assert_eq!(TokenDivergence::of(&[0.0], &[0.0], 1), None);
        assert_eq!(TokenDivergence::of(&[], &[], 0), None);
    }

    fn token(kl: f64, agrees: bool) -> TokenDivergence {
        TokenDivergence { kl, agrees, reference_nll: 1.0, nll: 1.0 + kl }
    }

    #[test]
    fn reports_of_blocks() {
        let mut divergence = Divergence::default();
        divergence.add_block(&[token(0.0, true), token(2.0, false)]);
        divergence.add_block(&[]);
        divergence.add_block(&[token(3.0, false), token(7.0, true)]);
        let found = divergence.report().unwrap();
        assert_eq!((found.blocks, found.tokens), (2, 4));
        assert_eq!((found.kl, found.agreement), (3.0, 0.5));
        // Means of blocks 1 and 5.
        assert_eq!((found.kl_stderr, found.agreement_stderr), (Some(2.0), Some(0.0)));
        assert_eq!(found.nll_difference_stderr, Some(2.0));
        assert_eq!((found.reference_nll, found.nll), (1.0, 4.0));
        assert_eq!(found.perplexity, 4.0_f64.exp());
        assert_eq!((found.kl_p50, found.kl_p90, found.kl_p99, found.kl_max), (2.0, 7.0, 7.0, 7.0));
        assert!(matches!(Divergence::default().report(), Err(Error::NoTokens)));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut divergence = Divergence::default();
        let tokens: Vec<TokenDivergence> = (1..=200).rev().map(|n| token(n.into(), true)).collect();
        divergence.add_block(&tokens);
        let found = divergence.report().unwrap();
        assert_eq!((found.kl_p50, found.kl_p90, found.kl_p99), (100.0, 180.0, 198.0));
        assert_eq!(found.kl_stderr, None);
    }
}
