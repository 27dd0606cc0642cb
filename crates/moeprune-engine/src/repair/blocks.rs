//! The tokens that a layer is repaired on, in the order in which they are run.

use std::ops::Range;

use moeprune_capture::TokenBlocks;
use moeprune_core::repair::RepairText;

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
