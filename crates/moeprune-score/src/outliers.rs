//! How many scores of a layer stand out.

use moeprune_core::{LinearView, StoredWeight, TensorBytes, WeightScorer};
use rayon::prelude::*;

use crate::{
    Error,
    scoring::{RowBuffers, Scoring, alone},
    simd::{Level, dispatched},
    sum::wide_sum,
};

/// The percentage of a layer's scores, those of all its Linears together, that are above
/// `multiplier` times their mean: what [`Owl`](crate::Owl) needs to know of a layer.
///
/// Linears whose inputs the scorer needs and has not are left out, as the reference does with
/// experts that are never called: their magnitudes are on another scale. `None` if nothing is
/// left.
///
/// The scores are never held: the matrices are gone through twice, with [`score_sum`] and
/// [`count_above`], which callers that cannot hold a layer's matrices use directly.
///
/// Mean and threshold are `f64`, and every score is compared exactly. The reference takes both in
/// `f32`, so that a score within a few parts in ten million of the threshold may fall on the other side there.
///
/// # Errors
/// As [`prune_matrix`](crate::prune_matrix), for the tensors and their scores.
pub fn outlier_percent(
    linears: &[(TensorBytes<'_>, LinearView<'_>)],
    scorer: &dyn WeightScorer,
    multiplier: f64,
) -> Result<Option<f64>, Error> {
    let mut sum = ScoreSum::default();
    for (matrix, linear) in linears {
        sum += score_sum(matrix, linear, scorer)?;
    }
    let Some(threshold) = sum.threshold(multiplier) else {
        return Ok(None);
    };
    let mut above = 0;
    for (matrix, linear) in linears {
        above += count_above(matrix, linear, scorer, threshold)?;
    }
    Ok(sum.percent(above))
}

/// Scores of one or several matrices, added up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "a sum and what it is of")]
pub struct ScoreSum {
    /// Sum of the scores.
    pub sum: f64,
    /// Number of scores.
    pub count: u64,
}

impl ScoreSum {
    /// `multiplier` times the mean score; `None` of no scores.
    #[must_use]
    pub fn threshold(self, multiplier: f64) -> Option<f64> {
        (self.count > 0).then(|| multiplier * (self.sum / self.count as f64))
    }

    /// `above` as a percentage of the number of scores; `None` of no scores.
    #[must_use]
    pub fn percent(self, above: u64) -> Option<f64> {
        (self.count > 0).then(|| above as f64 / self.count as f64 * 100.0)
    }
}

impl std::ops::AddAssign for ScoreSum {
    fn add_assign(&mut self, more: Self) {
        self.sum += more.sum;
        self.count += more.count;
    }
}

/// Adds up the scores of a matrix, in `f64` and in an order that does not depend on the number of
/// threads. Nothing (a count of zero) if the scorer needs inputs and the Linear has none.
///
/// # Errors
/// As [`prune_matrix`](crate::prune_matrix), for the tensor and its scores.
pub fn score_sum(
    matrix: &TensorBytes<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
) -> Result<ScoreSum, Error> {
    weight_score_sum(&alone(matrix.view(), linear)?, linear, scorer)
}

/// As [`score_sum`], of a weight in any encoding.
///
/// # Errors
/// As [`score_sum`].
pub fn weight_score_sum(
    weight: &StoredWeight<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
) -> Result<ScoreSum, Error> {
    let mut total = ScoreSum::default();
    for row in each_row(weight, linear, scorer, row_sum)? {
        total += ScoreSum { sum: row?, count: linear.cols as u64 };
    }
    Ok(total)
}

/// Counts the scores of a matrix above `threshold`; zero where [`score_sum`] has nothing to add.
///
/// # Errors
/// As [`prune_matrix`](crate::prune_matrix), for the tensor and its scores.
pub fn count_above(
    matrix: &TensorBytes<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
    threshold: f64,
) -> Result<u64, Error> {
    weight_count_above(&alone(matrix.view(), linear)?, linear, scorer, threshold)
}

/// As [`count_above`], of a weight in any encoding.
///
/// # Errors
/// As [`count_above`].
pub fn weight_count_above(
    weight: &StoredWeight<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
    threshold: f64,
) -> Result<u64, Error> {
    let floor = floor_f32(threshold);
    let mut above = 0;
    for row in each_row(weight, linear, scorer, |level, s| row_count_above(level, s, floor))? {
        above += row?;
    }
    Ok(above)
}

/// Applies `reduce` to the scores of each row; nothing for a Linear without the inputs it needs.
fn each_row<T: Send>(
    weight: &StoredWeight<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
    reduce: impl Fn(Level, &[f32]) -> T + Sync,
) -> Result<Vec<Result<T, Error>>, Error> {
    let scoring = Scoring::new(weight, linear, scorer)?;
    if scoring.idle {
        return Ok(Vec::new());
    }
    let main = weight.main().bytes();
    let score = |buffers: &mut RowBuffers, row: usize| {
        scoring.score_row(row, main, buffers)?;
        Ok(reduce(scoring.level, &buffers.scores))
    };
    let rows = (0..scoring.rows()).into_par_iter().with_min_len(scoring.storage.rows_together());
    Ok(rows.map_init(RowBuffers::default, score).collect())
}

dispatched! {
    fn row_sum(scores: &[f32]) -> f64 {
        wide_sum(scores)
    }
}

dispatched! {
    fn row_count_above(scores: &[f32], floor: f32) -> u64 {
        // Blocks that a narrow counter, as wide as a score, is enough for.
        let count = |block: &[f32]| block.iter().map(|&s| u32::from(s > floor)).sum::<u32>();
        scores.chunks(1 << 16).map(|block| u64::from(count(block))).sum()
    }
}

/// The largest `f32` not above `value`: an `f32` is above the one exactly if it is above the other.
pub(crate) fn floor_f32(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) > value { nearest.next_down() } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::{floor_f32, row_count_above, row_sum};
    use crate::simd::same_at_all_levels;

    #[test]
    fn a_threshold_between_two_scores() {
        let scores = [0.0, -0.0, 1e-45, 1.0, 1f32.next_up(), 1f32.next_down(), 3.5, f32::MAX];
        let thresholds =
            [0.0, -1e-50, 1e-50, 1e-45, 1.0, 1.0 + 1e-12, 1.0 - 1e-12, 3.4e38, 1e300, -1e300]
                .into_iter()
                .chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
        for threshold in thresholds {
            let floor = floor_f32(threshold);
            for score in scores {
                assert_eq!(score > floor, f64::from(score) > threshold, "{score} {threshold}");
            }
        }
    }

    #[test]
    fn all_levels_reduce_alike() {
        let scores: Vec<f32> = (0..2049).map(|j| (j * 7919 % 1013) as f32 * 1e-3).collect();
        for length in [0, 1, 7, 8, 9, 63, 1000, 2049] {
            same_at_all_levels(|level| row_sum(level, &scores[..length]).to_bits());
            let above = same_at_all_levels(|level| row_count_above(level, &scores[..length], 0.5));
            let expected = scores[..length].iter().filter(|&&score| score > 0.5).count();
            assert_eq!(above, expected as u64);
        }
    }
}
