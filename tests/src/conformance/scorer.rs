//! What [`WeightScorer`] and [`MaskPattern`] promise.

use moeprune_core::{
    AttentionProjection, InputMoments, LinearId, LinearView, MlpProjection, WeightScorer,
};
use moeprune_score::MaskPattern;
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a scorer to its contract:
///
/// * scores of finite weights are finite and not negative, and every one is written;
/// * it gives the same scores each time, from any thread, for rows in any order;
/// * features that were always zero are no reason to fail;
/// * without inputs it still ranks weights of different magnitudes;
/// * inputs change nothing if it says that it needs none;
/// * column factors, if it has them, make the scores it gives.
///
/// # Panics
/// If one of these is broken.
pub fn check(scorer: &dyn WeightScorer) {
    for_all(&matrices(), |matrix| {
        let with = pure(|| matrix.scores(scorer, true))?.map_err(TestCaseError::fail)?;
        let without = pure(|| matrix.scores(scorer, false))?.map_err(TestCaseError::fail)?;
        for (place, score) in with.iter().chain(&without).enumerate() {
            let good = f32::from_bits(*score) >= 0.0 && f32::from_bits(*score).is_finite();
            prop_assert!(good, "score {} at {}", f32::from_bits(*score), place);
        }
        for (weights, scores) in matrix.rows(&matrix.weights).zip(matrix.rows(&without)) {
            let magnitudes_differ = weights.iter().any(|w| w.abs() != weights[0].abs());
            let scores_differ = scores.iter().any(|score| *score != scores[0]);
            prop_assert!(
                scores_differ || !magnitudes_differ,
                "without inputs, {:?} all score the same",
                weights
            );
        }
        if !scorer.needs_inputs() {
            prop_assert_eq!(with, without, "needs_inputs() is false and inputs matter");
        }
        Ok(())
    });
}

/// Holds a mask pattern to its contract:
///
/// * it never marks more than the quota, and nothing at a quota of zero;
/// * a pattern with a fixed ratio makes the same mask at any quota, and takes no larger
///   share of a row than it says;
/// * it gives the same mask each time, from any thread;
/// * it takes minus zero for zero.
///
/// # Panics
/// If one of these is broken.
pub fn check_pattern(pattern: &dyn MaskPattern) {
    for_all(&(scores(), 0.0f64..1.0), |(scores, share)| {
        let positive: Vec<f32> = scores.iter().map(|score| score.abs()).collect();
        let most = scores.len();
        let quotas = [0, (share * most as f64) as usize, most.saturating_sub(1), most];
        let mut masks = Vec::new();
        for quota in quotas {
            let marked = |scores: &[f32]| {
                let mut mask = vec![false; scores.len()];
                pattern.mask_row(scores, quota, &mut mask);
                mask
            };
            let mask = pure(|| marked(&scores))?;
            let count = mask.iter().filter(|&&gone| gone).count();
            match pattern.fixed_ratio() {
                None => prop_assert!(count <= quota, "{} marked, the quota is {}", count, quota),
                Some(ratio) => prop_assert!(
                    count as f64 <= (most as f64 * ratio.value()).ceil(),
                    "{} of {} marked, fixed_ratio() is {}",
                    count,
                    most,
                    ratio
                ),
            }
            prop_assert_eq!(&mask, &marked(&positive), "minus zero is taken for something else");
            masks.push(mask);
        }
        if pattern.fixed_ratio().is_some() {
            let same = masks.iter().all(|mask| *mask == masks[0]);
            prop_assert!(same, "fixed_ratio() is Some and the quota matters");
        }
        Ok(())
    });
}

#[derive(Debug)]
struct Matrix {
    linear: LinearId,
    cols: usize,
    weights: Vec<f32>,
    inputs: InputMoments,
}

impl Matrix {
    fn rows<'a, T>(&self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        values.chunks(self.cols)
    }

    /// The bits of all scores, which must not depend on what was in their place nor on the order
    /// in which rows are scored.
    fn scores(&self, scorer: &dyn WeightScorer, heard: bool) -> Result<Vec<u32>, String> {
        let rows = self.weights.len() / self.cols;
        let inputs = heard.then_some(&self.inputs);
        let view = LinearView { layer: 3, id: self.linear, rows, cols: self.cols, inputs };
        let bound = scorer.bind(&view).map_err(|error| format!("refused {view:?}: {error}"))?;
        let mut forward = vec![f32::NAN; self.weights.len()];
        for (weights, scores) in self.rows(&self.weights).zip(forward.chunks_mut(self.cols)) {
            bound.score_row(weights, scores);
        }
        let mut backward = vec![0.5; self.weights.len()];
        for (weights, scores) in
            self.weights.rchunks(self.cols).zip(backward.rchunks_mut(self.cols))
        {
            bound.score_row(weights, scores);
        }
        let bits = |scores: Vec<f32>| scores.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let (forward, backward) = (bits(forward), bits(backward));
        if forward != backward {
            return Err(format!("{view:?}: scores depend on other rows or on the buffer"));
        }
        if let Some(factors) = bound.column_factors() {
            let rows = self.rows(&self.weights);
            let products = rows.flat_map(|row| row.iter().zip(factors)).map(|(w, f)| w.abs() * f);
            if factors.len() != self.cols || bits(products.collect()) != forward {
                return Err(format!("{view:?}: the column factors make other scores"));
            }
        }
        Ok(forward)
    }
}

/// One to four rows of one to eleven weights, some zero, and inputs at least one token reached.
fn matrices() -> impl Strategy<Value = Matrix> {
    let linear = prop_oneof![
        Just(LinearId::Attention(AttentionProjection::Output)),
        Just(LinearId::Expert(5, MlpProjection::Down)),
    ];
    (linear, 1usize..5, 1usize..12).prop_flat_map(|(linear, rows, cols)| {
        let weight = prop_oneof![Just(0.0f32), Just(-0.0f32), Just(0.5f32), -4.0f32..4.0];
        let square = prop_oneof![Just(0.0f64), 0.0f64..1e4];
        let weights = prop::collection::vec(weight, rows * cols);
        let squares = prop::collection::vec(square, cols);
        (weights, squares, 1u64..5, 0u64..60).prop_map(
            move |(weights, sum_squares, calls, more)| {
                let inputs = InputMoments { tokens: calls + more, calls, sum_squares };
                Matrix { linear, cols, weights, inputs }
            },
        )
    })
}

/// Up to 39 scores, many of them equal.
fn scores() -> impl Strategy<Value = Vec<f32>> {
    let score = prop_oneof![Just(0.0f32), Just(-0.0f32), Just(1.0f32), 0.0f32..2.0];
    prop::collection::vec(score, 0..40)
}
