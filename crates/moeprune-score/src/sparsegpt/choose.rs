//! Which weights of a block of columns go, all rows compared with each other.

use moeprune_core::{LinearView, Sparsity};
use rayon::prelude::*;

use super::PIECE;
use crate::{
    Error,
    rank::{UNRANKABLE, rank_key},
    smallest::mark_smallest,
};

/// A block of columns about to lose some of its weights.
pub(super) struct Block<'a> {
    pub(super) linear: LinearView<'a>,
    /// First column.
    pub(super) start: usize,
    /// The diagonal of `U`, an entry for each column of the block.
    pub(super) diagonal: &'a [f32],
    /// Columns whose input was always zero.
    pub(super) dead: &'a [bool],
}

impl Block<'_> {
    /// Writes `|w| / U_jj` for all weights of the block to `scores`, `[rows, width]`.
    ///
    /// The method's score is the square of this, which ranks the same but overflows and vanishes
    /// sooner. Weights of dead columns, which are zero by now, score below all others.
    pub(super) fn score(&self, weights: &[f32], scores: &mut [f32]) -> Result<(), Error> {
        let (cols, width) = (self.linear.cols, self.diagonal.len());
        let least: Vec<f32> =
            self.dead.iter().map(|&dead| if dead { 0.0 } else { f32::MIN_POSITIVE }).collect();
        let score_row = |weights: &[f32], scores: &mut [f32]| {
            let columns = weights.iter().zip(self.diagonal).zip(&least);
            let mut worst = 0;
            for (score, ((weight, diagonal), &least)) in scores.iter_mut().zip(columns) {
                let ratio = weight.abs() / diagonal;
                // Not `max`, which would let a NaN pass.
                *score = if ratio < least { least } else { ratio };
                worst = rank_key(*score).max(worst);
            }
            worst < UNRANKABLE
        };
        let pieces = scores.par_chunks_mut(PIECE * width).zip(weights.par_chunks(PIECE * cols));
        let fine = pieces.map(|(scores, weights)| {
            let rows = scores.chunks_exact_mut(width).zip(weights.chunks_exact(cols));
            rows.fold(true, |fine, (scores, weights)| {
                score_row(&weights[self.start..][..width], scores) & fine
            })
        });
        if fine.reduce(|| true, |a, b| a & b) {
            return Ok(());
        }
        let at = scores.iter().position(|&score| rank_key(score) >= UNRANKABLE).unwrap_or_default();
        let (row, col) = (at / width, self.start + at % width);
        Err(Error::Score {
            layer: self.linear.layer,
            linear: self.linear.id,
            row,
            col,
            weight: weights[row * cols + col],
            score: scores[at],
        })
    }
}

/// Marks all scores up to the one that `share` of them are below, as the reference does.
///
/// At least one more is marked than `⌊share · scores⌋`, and all that are equal to the last. A share
/// of 1, for which there is no such score, is not a [`Sparsity`], and nothing below 1 rounds to it.
pub(super) fn mark_up_to(scores: &[f32], share: Sparsity, mask: &mut [bool]) {
    let below = (scores.len() as f64 * share.value()) as usize;
    mark_smallest(scores, below + 1, mask);
    let marked = scores.iter().zip(&*mask).filter(|&(_, &marked)| marked);
    let threshold = marked.map(|(&score, _)| score).fold(0.0, f32::max);
    for (mark, &score) in mask.iter_mut().zip(scores) {
        *mark = score <= threshold;
    }
}

/// Weights that each block loses when the matrix loses `total`, or all its dead ones if they are
/// more.
///
/// A block is its weights and how many of them are dead. All dead ones go; other than that, blocks
/// lose equal shares, and where that is no whole number what one rounds off the next makes up for.
pub(super) fn quotas(total: u64, blocks: &[(u64, u64)]) -> Vec<u64> {
    // Blocks that have more dead weights than their share lose just those, which leaves less for
    // the others, so that some of them may have more than their share, too.
    let mut only_dead = vec![false; blocks.len()];
    let (mut total, mut weights) = (total, blocks.iter().map(|block| block.0).sum::<u64>());
    loop {
        let (shared, among) = (total, weights);
        for (&(size, dead), only_dead) in blocks.iter().zip(&mut only_dead) {
            let share = u128::from(shared) * u128::from(size);
            if !*only_dead && u128::from(dead) * u128::from(among) > share {
                *only_dead = true;
                total = total.saturating_sub(dead);
                weights -= size;
            }
        }
        if weights == among {
            break;
        }
    }
    let mut passed = 0;
    let up_to = |passed: u64| (u128::from(total) * u128::from(passed) / u128::from(weights)) as u64;
    blocks
        .iter()
        .zip(only_dead)
        .map(|(&(size, dead), only_dead)| {
            if only_dead {
                return dead;
            }
            passed += size;
            up_to(passed) - up_to(passed - size)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use moeprune_core::Sparsity;
    use proptest::prelude::*;

    use super::{mark_up_to, quotas};

    #[test]
    fn shares_of_blocks() {
        assert_eq!(quotas(5, &[(4, 0), (4, 0), (2, 0)]), [2, 2, 1]);
        assert_eq!(quotas(6, &[(4, 4), (4, 0), (4, 0)]), [4, 1, 1]);
        // The first block's dead weights leave the second a share below its own.
        assert_eq!(quotas(6, &[(4, 4), (4, 2), (4, 0)]), [4, 2, 0]);
        assert_eq!(quotas(3, &[(4, 4), (4, 2), (4, 0)]), [4, 2, 0]);
        assert_eq!(quotas(0, &[(4, 0)]), [0]);
        assert_eq!(quotas(0, &[]), [0; 0]);
    }

    #[test]
    fn up_to_a_score() {
        let marked = |scores: &[f32], share: f64| {
            let mut mask = vec![false; scores.len()];
            mark_up_to(scores, Sparsity::new(share).unwrap(), &mut mask);
            mask
        };
        assert_eq!(marked(&[1.0, 2.0, 2.0, 3.0], 0.25), [true, true, true, false]);
        assert_eq!(marked(&[1.0, 2.0], 0.0), [true, false]);
        assert_eq!(marked(&[], 0.5), [false; 0]);
        assert_eq!(marked(&[1.0, 2.0, 3.0], 1.0 - f64::EPSILON / 2.0), [true; 3]);
    }

    proptest! {
        #[test]
        fn all_that_was_asked_for(
            blocks in prop::collection::vec((1u64..500, 0.0f64..1.3), 1..20),
            share in 0.0f64..1.0,
        ) {
            let blocks: Vec<(u64, u64)> = blocks
                .into_iter()
                .map(|(size, dead)| (size, ((dead - 0.3).max(0.0) * size as f64) as u64))
                .collect();
            let (all, dead) = blocks.iter().fold((0, 0), |sum, b| (sum.0 + b.0, sum.1 + b.1));
            let total = (all as f64 * share) as u64;
            let quotas = quotas(total, &blocks);
            prop_assert_eq!(quotas.iter().sum::<u64>(), total.max(dead));
            for (&(size, dead), quota) in blocks.iter().zip(quotas) {
                prop_assert!((dead..=size).contains(&quota), "{quota} of {size}, {dead} dead");
            }
        }
    }
}
