//! Marking the smallest of a row of scores, without sorting it.
//!
//! A *cut* is searched for, a number such that the right number of scores are below it, by
//! counting how many are below guesses. Counting is what vector units do best, guesses close in
//! fast (a sample places the first, interpolation the others), and what is found does not depend
//! on how.

use crate::simd::{Level, dispatched};

/// Scores looked at to place the first guesses.
const SAMPLE: usize = 256;
/// Rows shorter than this are searched without a sample.
const SAMPLED_FROM: usize = 4 * SAMPLE;
/// The lowest bits of a sampled score that are not looked at; the first guesses need no more.
const COARSE: u32 = 11;
/// The bits of infinity, which all scores are below.
const INFINITY: u32 = f32::INFINITY.to_bits();

/// Marks the `count` smallest scores; of equal ones, the first. The same as marking the first
/// `count` of a stable sort.
///
/// Scores are finite and not negative, or minus zero; `mask` is all `false` and as long.
pub(crate) fn mark_smallest(scores: &[f32], count: usize, mask: &mut [bool]) {
    mark(Level::detected(), scores, count, mask);
}

dispatched! {
    fn mark(scores: &[f32], count: usize, mask: &mut [bool]) {
        if count == 0 {
            return;
        }
        if count >= scores.len() {
            mask.fill(true);
            return;
        }
        let cut = Search::new(scores, count).cut();
        let bound = f32::from_bits(cut.bits);
        let last = after_ties(scores, bound, cut.ties);
        for (mark, &score) in mask[..last].iter_mut().zip(&scores[..last]) {
            *mark = score <= bound;
        }
        for (mark, &score) in mask[last..].iter_mut().zip(&scores[last..]) {
            *mark = score < bound;
        }
    }
}

/// All scores below the number with these bits go, and the first `ties` of those equal to it.
///
/// The bits of numbers that are not negative order as the numbers do.
struct Cut {
    bits: u32,
    ties: usize,
}

/// The column after the `ties`-th score equal to `bound`, of which there are as many.
#[inline(always)]
fn after_ties(scores: &[f32], bound: f32, mut ties: usize) -> usize {
    if ties == 0 {
        return 0;
    }
    const BLOCK: usize = 256;
    for (block, some) in scores.chunks(BLOCK).enumerate() {
        let here = some.iter().map(|&score| u32::from(score == bound)).sum::<u32>() as usize;
        if here < ties {
            ties -= here;
            continue;
        }
        for (j, &score) in some.iter().enumerate() {
            ties -= usize::from(score == bound);
            if ties == 0 {
                return block * BLOCK + j + 1;
            }
        }
    }
    scores.len()
}

/// Fewer than `count` scores are below `low`, more are below `high`; the cut lies between them.
struct Search<'a> {
    scores: &'a [f32],
    count: usize,
    low: u32,
    below_low: usize,
    high: u32,
    below_high: usize,
}

/// How to come closer.
enum Step {
    /// Count below two guesses, taking the scores in between for evenly spread.
    Interpolate,
    /// Move both ends to scores that are there.
    Tighten,
    /// Count below two numbers that make three equal parts.
    Thirds,
}

impl<'a> Search<'a> {
    #[inline(always)]
    fn new(scores: &'a [f32], count: usize) -> Self {
        Self { scores, count, low: 0, below_low: 0, high: INFINITY, below_high: scores.len() }
    }

    #[inline(always)]
    fn cut(mut self) -> Cut {
        let sampled = self.scores.len() >= SAMPLED_FROM;
        let mut guesses = sampled.then(|| quantiles_around(self.scores, self.count));
        let mut step = Step::Interpolate;
        loop {
            if self.high - self.low == 1 {
                return self.ties_at_low();
            }
            let between = self.below_high - self.below_low;
            let [a, b] = match (guesses.take(), &step) {
                (Some(sampled), _) => sampled,
                (None, Step::Interpolate) => self.interpolated(),
                (None, Step::Thirds) => {
                    let width = self.high - self.low;
                    [self.low + width.div_ceil(3), self.high - width.div_ceil(3)]
                }
                (None, Step::Tighten) => {
                    let [least, most] = extremes(self.scores, self.low, self.high);
                    self.low = least;
                    self.high = most + 1;
                    step = Step::Thirds;
                    continue;
                }
            };
            let below = counts_below(self.scores, [a, b].map(f32::from_bits));
            for (bits, below) in [a, b].into_iter().zip(below) {
                if below == self.count {
                    return Cut { bits, ties: 0 };
                }
                self.narrow(bits, below);
            }
            // Many equal scores are no even spread: interpolation alone would take for ever.
            let halved = 2 * (self.below_high - self.below_low) <= between;
            step = match step {
                Step::Interpolate if !halved => Step::Tighten,
                _ => Step::Interpolate,
            };
        }
    }

    #[inline(always)]
    fn ties_at_low(&self) -> Cut {
        Cut { bits: self.low, ties: self.count - self.below_low }
    }

    #[inline(always)]
    fn narrow(&mut self, bits: u32, below: usize) {
        if below < self.count && bits > self.low {
            (self.low, self.below_low) = (bits, below);
        }
        if below > self.count && bits < self.high {
            (self.high, self.below_high) = (bits, below);
        }
    }

    /// One guess to either side of where the cut is expected.
    #[inline(always)]
    fn interpolated(&self) -> [u32; 2] {
        let between = (self.below_high - self.below_low) as f64;
        let share = (self.count - self.below_low) as f64 / between;
        // A standard deviation of where evenly drawn scores put it, and half a score.
        let spread = (share * (1.0 - share) / between).sqrt() + 0.5 / between;
        let width = f64::from(self.high - self.low);
        [share - spread, share + spread].map(|share| {
            (self.low + (share.clamp(0.0, 1.0) * width) as u32).clamp(self.low + 1, self.high - 1)
        })
    }
}

/// How many scores are below each bound.
#[inline(always)]
fn counts_below(scores: &[f32], bounds: [f32; 2]) -> [usize; 2] {
    let mut counts = [0; 2];
    // Blocks that a narrow counter, as wide as a score, is enough for.
    for block in scores.chunks(1 << 16) {
        let (mut a, mut b) = (0u32, 0u32);
        for &score in block {
            a += u32::from(score < bounds[0]);
            b += u32::from(score < bounds[1]);
        }
        counts[0] += a as usize;
        counts[1] += b as usize;
    }
    counts
}

/// The bits of the least and the greatest score that are from `low` to below `high`; there are
/// some.
#[inline(always)]
fn extremes(scores: &[f32], low: u32, high: u32) -> [u32; 2] {
    let (mut least, mut most) = (high - 1, low);
    for &score in scores {
        let key = key(score);
        least = least.min(if key >= low { key } else { u32::MAX });
        most = most.max(if key < high { key } else { 0 });
    }
    [least, most]
}

/// Quantiles of a sample of the scores that the cut is most likely between.
#[inline(always)]
fn quantiles_around(scores: &[f32], count: usize) -> [u32; 2] {
    let stride = scores.len() / SAMPLE;
    let mut sample = [0; SAMPLE];
    for (key, chunk) in sample.iter_mut().zip(scores.chunks_exact(stride)) {
        *key = self::key(chunk[0]);
    }
    let share = count as f64 / scores.len() as f64;
    let rank = share * SAMPLE as f64;
    // Two standard deviations of a binomial count.
    let margin = 2.0 * (rank * (1.0 - share)).sqrt() + 1.0;
    let ranks = [(rank - margin).max(0.0) as u32, (rank + margin) as u32];
    // The greatest numbers that no more of the sample are below, bit by bit.
    let mut bits = [0u32; 2];
    for bit in (COARSE..31).rev() {
        let tried = bits.map(|bits| bits | 1 << bit);
        let mut below = [0u32; 2];
        for &key in &sample {
            below[0] += u32::from(key < tried[0]);
            below[1] += u32::from(key < tried[1]);
        }
        for i in 0..2 {
            if below[i] <= ranks[i] {
                bits[i] = tried[i];
            }
        }
    }
    [bits[0], bits[1] + (1 << COARSE)].map(|bits| bits.clamp(1, INFINITY - 1))
}

/// Bits that order as the scores do; minus zero becomes zero.
#[inline(always)]
fn key(score: f32) -> u32 {
    score.to_bits() & (u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::mark;
    use crate::simd::same_at_all_levels;

    fn check(scores: &[f32], count: usize) {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].partial_cmp(&scores[b]).expect("no NaN"));
        let mut expected = vec![false; scores.len()];
        for &j in &order[..count] {
            expected[j] = true;
        }
        let mask = same_at_all_levels(|level| {
            let mut mask = vec![false; scores.len()];
            mark(level, scores, count, &mut mask);
            mask
        });
        let wrong = mask.iter().zip(&expected).position(|(got, expected)| got != expected);
        assert_eq!(wrong, None, "{count} of {}: the first wrong column", scores.len());
    }

    #[test]
    fn short_rows() {
        check(&[], 0);
        check(&[1.0], 0);
        check(&[1.0], 1);
        check(&[2.0, 1.0], 1);
        check(&[1.0, 1.0, 1.0], 2);
        check(&[0.0, -0.0, 0.0, 1.0], 1);
        check(&[1.0, -0.0, 0.0], 1);
        check(&[f32::MAX, 1e-45, 2e-45, 0.0], 2);
        check(&[3.0, 1.0, 3.0, 2.0, 3.0], 3);
    }

    #[test]
    fn a_misleading_sample_changes_nothing() {
        // Every sampled column holds a large score, all others small ones.
        let stride = 5000 / super::SAMPLE;
        let scores: Vec<f32> =
            (0..5000).map(|j| if j % stride == 0 { 1e6 + j as f32 } else { j as f32 }).collect();
        for count in [1, 100, 2500, 4700, 4999] {
            check(&scores, count);
        }
    }

    #[test]
    fn far_more_values_than_a_step_can_part() {
        // Every exponent, both ends of the range, and two thirds of all in one value.
        let scores: Vec<f32> = (0..6000u32)
            .map(|j| if j % 3 == 0 { f32::from_bits(j * 350_000 % 0x7f80_0000) } else { 1e-40 })
            .collect();
        for count in [1, 2, 1999, 2000, 2001, 3000, 4500, 5998, 5999] {
            check(&scores, count);
        }
    }

    #[test]
    fn two_values() {
        let scores: Vec<f32> = (0..2500).map(|j| if j % 7 < 3 { 0.25 } else { 3e38 }).collect();
        for count in [1, 1000, 1071, 1072, 1073, 1074, 1075, 2000, 2499] {
            check(&scores, count);
        }
    }

    #[test]
    fn a_constant_row_loses_its_first_columns() {
        check(&[0.5; 3000], 1234);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn long_rows(
            scores in prop::collection::vec(
                prop_oneof![
                    0f32..1.0,
                    (0u32..8).prop_map(|v| v as f32 / 4.0),
                    (0u32..200).prop_map(f32::from_bits),
                    Just(-0.0f32),
                ],
                1..4000,
            ),
            share in 0f64..=1.0,
        ) {
            let count = (share * scores.len() as f64) as usize;
            check(&scores, count);
        }
    }
}
