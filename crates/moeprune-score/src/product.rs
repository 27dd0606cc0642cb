//! Weights times what they multiply.

use crate::simd::dispatched;

dispatched! {
    /// `|w_j|` into each score.
    pub(crate) fn absolute(weights: &[f32], scores: &mut [f32]) {
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score = weight.abs();
        }
    }
}

dispatched! {
    /// `|w_j| · factor_j` into each score.
    pub(crate) fn product(weights: &[f32], factors: &[f32], scores: &mut [f32]) {
        for ((score, weight), factor) in scores.iter_mut().zip(weights).zip(factors) {
            *score = weight.abs() * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{absolute, product};
    use crate::simd::same_at_all_levels;

    /// Denormals, both zeros, infinities and NaN among ordinary numbers.
    #[test]
    fn all_levels_score_alike() {
        let odd = [0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
        let weights: Vec<f32> =
            (0..531).map(|j| if j % 3 == 0 { odd[j / 3 % 8] } else { 1.0 - j as f32 }).collect();
        let factors: Vec<f32> =
            (0..531).map(|j| if j % 5 == 0 { odd[j / 5 % 6] } else { j as f32 * 1e-3 }).collect();
        let scores = |score: &dyn Fn(&mut [f32])| {
            let mut scores = vec![2.0; weights.len()];
            score(&mut scores);
            scores.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        same_at_all_levels(|level| scores(&|to| absolute(level, &weights, to)));
        same_at_all_levels(|level| scores(&|to| product(level, &weights, &factors, to)));
    }
}
