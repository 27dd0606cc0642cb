//! Weights times what they multiply.

use moeprune_core::BoundScorer;

use crate::simd::{Level, dispatched};

/// Scores a weight by `|w_j| · factor_j`.
pub(crate) struct Product {
    pub(crate) factors: Vec<f32>,
}

impl BoundScorer for Product {
    fn score_row(&self, weights: &[f32], scores: &mut [f32]) {
        product(Level::detected(), weights, &self.factors, scores);
    }

    fn column_factors(&self) -> Option<&[f32]> {
        Some(&self.factors)
    }
}

dispatched! {
    fn product(weights: &[f32], factors: &[f32], scores: &mut [f32]) {
        for ((score, weight), factor) in scores.iter_mut().zip(weights).zip(factors) {
            *score = weight.abs() * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::product;
    use crate::simd::same_at_all_levels;

    /// Denormals, both zeros, infinities and NaN among ordinary numbers.
    #[test]
    fn all_levels_score_alike() {
        let odd = [0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
        let weights: Vec<f32> =
            (0..531).map(|j| if j % 3 == 0 { odd[j / 3 % 8] } else { 1.0 - j as f32 }).collect();
        let factors: Vec<f32> =
            (0..531).map(|j| if j % 5 == 0 { odd[j / 5 % 6] } else { j as f32 * 1e-3 }).collect();
        same_at_all_levels(|level| {
            let mut scores = vec![2.0; weights.len()];
            product(level, &weights, &factors, &mut scores);
            scores.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
    }
}
