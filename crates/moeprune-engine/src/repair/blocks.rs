//! The tokens that a layer is repaired on, in the order in which they are run.

use std::ops::Range;

use moeprune_capture::TokenBlocks;
use moeprune_core::repair::RepairText;

use super::RepairTextSize;
use crate::{Error, RepairCalibration};

/// All blocks in one row: those that are fitted, of all texts, and then those that are held out.
#[derive(Debug)]
pub(super) struct RepairTokens {
    pub(super) blocks: TokenBlocks,
    /// Tokens of the blocks that are fitted.
    pub(super) fitted: usize,
    /// Per text its held-out tokens; empty for a text without.
    pub(super) held_out: Vec<Range<usize>>,
    pub(super) texts: Vec<RepairText>,
}

impl RepairTokens {
    /// How much text they are.
    pub(super) fn size(&self) -> RepairTextSize {
        let fitted = self.fitted as u64;
        let block = self.blocks.blocks().iter().map(|block| block.len() as u64).max();
        let held_out = self.blocks.tokens() - fitted;
        RepairTextSize { fitted, held_out, block: block.unwrap_or(0) }
    }

    pub(super) fn of(calibration: &RepairCalibration) -> Result<Self, Error> {
        let texts = &calibration.texts;
        let mut fitted = texts.iter().filter_map(|text| text.fitted.as_ref());
        let first = fitted.next().cloned();
        let first = first.ok_or_else(|| Error::Request("a repair needs blocks to fit".into()))?;
        let blocks = first.followed_by(fitted);
        let mut next = blocks.tokens() as usize;
        let all = Self {
            fitted: next,
            held_out: texts
                .iter()
                .map(|text| {
                    let start = next;
                    next += text.held_out.as_ref().map_or(0, |blocks| blocks.tokens() as usize);
                    start..next
                })
                .collect(),
            blocks: blocks.followed_by(texts.iter().filter_map(|text| text.held_out.as_ref())),
            texts: calibration.summary(),
        };
        Ok(all)
    }

    /// Weights of tokens under which the held-out ones of each text count as much as its fitted ones do beside
    /// those of the others: not at all where a text is only measured.
    pub(super) fn by_their_texts(&self, token_weights: &[f32]) -> Vec<f32> {
        let mut weights = token_weights.to_vec();
        let tokens =
            |blocks: usize, text: &RepairText| blocks as f64 * text.corpus.sequence_len as f64;
        let fitted = |text: &RepairText| tokens(text.fitted, text);
        let apart =
            |text: &RepairText| if text.fitted > 0 { tokens(text.held_out, text) } else { 0.0 };
        let all_fitted: f64 = self.texts.iter().map(fitted).sum();
        let all_apart: f64 = self.texts.iter().map(apart).sum();
        for (text, range) in self.texts.iter().zip(&self.held_out) {
            let (share, of_apart) = (fitted(text) / all_fitted, apart(text) / all_apart);
            let factor = if of_apart > 0.0 { share / of_apart } else { 0.0 };
            weights[range.clone()].iter_mut().for_each(|weight| *weight *= factor as f32);
        }
        weights
    }

    /// Per token whether the sum of what the experts write is kept: all that are held out, and of those
    /// that are fitted every eighth block.
    pub(super) fn sampled(&self) -> impl Iterator<Item = bool> + '_ {
        const EVERY: usize = 8;
        let blocks = self.blocks.blocks().iter().enumerate();
        let of_blocks =
            blocks.flat_map(|(b, tokens)| std::iter::repeat_n(b % EVERY == 0, tokens.len()));
        of_blocks.enumerate().map(|(token, sampled)| sampled || token >= self.fitted)
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::CorpusTag;

    use super::*;

    fn check(texts: &[(usize, usize)], expected: &[f32]) {
        let tag = |samples: usize| CorpusTag {
            name: String::new(),
            sha256: String::new(),
            samples: samples as u64,
            sequence_len: 2,
            seed: 0,
            repeated: 1,
            read: None,
        };
        let fitted = texts.iter().map(|(fitted, _)| 2 * fitted).sum();
        let (mut next, mut held_out, mut summary) = (fitted, Vec::new(), Vec::new());
        for &(fitted, apart) in texts {
            held_out.push(next..next + 2 * apart);
            next += 2 * apart;
            summary.push(RepairText { corpus: tag(fitted + apart), fitted, held_out: apart });
        }
        let blocks = TokenBlocks::new(vec![vec![0; 2]; next / 2], 1).unwrap();
        let tokens = RepairTokens { blocks, fitted, held_out, texts: summary };
        let weights = tokens.by_their_texts(&vec![1.0; next]);
        assert!(weights[..fitted].iter().all(|&weight| weight == 1.0));
        let of_texts: Vec<f32> = tokens
            .held_out
            .iter()
            .map(|range| weights[range.clone()].first().copied().unwrap_or(0.0))
            .collect();
        assert_eq!(of_texts, expected);
    }

    #[test]
    fn held_out_tokens_count_as_their_text_is_fitted() {
        check(&[(8, 1)], &[1.0]);
        check(&[(8, 1), (0, 1)], &[1.0, 0.0]);
        check(&[(6, 1), (2, 1)], &[1.5, 0.5]);
        check(&[(6, 0), (2, 1)], &[0.0, 0.25]);
        check(&[(8, 0), (0, 1)], &[0.0, 0.0]);
    }
}
