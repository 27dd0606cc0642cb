//! Weights, inputs and Hessians to try it on.

use moeprune_core::{
    InputHessian, LinearId, LinearView, MlpProjection, Sparsity, TensorBytes, WeightReconstructor,
};
use moeprune_score::{
    BlockThreshold, Fallback, PerRow, PrunedMatrix, Rounding, SparseGpt, Wanda, reconstruct_matrix,
};

pub(crate) const REFERENCE: SparseGpt = SparseGpt {
    block: 128,
    damping: 0.01,
    threshold: BlockThreshold::Reference,
    least_tokens: Some(1),
};

pub(crate) fn ratio(share: f64) -> Sparsity {
    Sparsity::new(share).unwrap()
}

pub(crate) fn view(rows: usize, cols: usize) -> LinearView<'static> {
    let id = LinearId::Expert(7, MlpProjection::Up);
    LinearView { layer: 3, id, rows, cols, inputs: None }
}

/// The sums of `x xᵀ` over rows of inputs.
pub(crate) fn hessian(inputs: &[f32], features: usize, calls: u64) -> InputHessian {
    let mut sums = vec![0.0f64; features * features];
    for x in inputs.chunks_exact(features.max(1)) {
        for (sums, &a) in sums.chunks_exact_mut(features.max(1)).zip(x) {
            for (sum, &b) in sums.iter_mut().zip(x) {
                *sum += f64::from(a) * f64::from(b);
            }
        }
    }
    let sums = sums.into_iter().map(|sum| sum as f32).collect();
    let tokens = (inputs.len() / features.max(1)) as u64;
    InputHessian::new(tokens, calls, features, sums).unwrap()
}

pub(crate) fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (0..4).map(|_| uniform()).sum::<f32>() - 2.0).collect()
}

/// Inputs of which neighbours go together.
pub(crate) fn inputs(tokens: usize, features: usize, seed: u64) -> Vec<f32> {
    let mut inputs = numbers(tokens * features, seed);
    for x in inputs.chunks_exact_mut(features.max(1)) {
        for j in 1..features {
            x[j] += 0.7 * x[j - 1];
        }
    }
    inputs
}

pub(crate) fn zeros(weights: &[f32]) -> u64 {
    weights.iter().filter(|&&w| w == 0.0).count() as u64
}

/// A matrix, its Linear, its Hessian: half of it goes, by `sparsegpt` or else by Wanda.
pub(crate) fn half(
    sparsegpt: &dyn WeightReconstructor,
    tensor: TensorBytes<'_>,
    linear: &LinearView<'_>,
    hessian: Option<&InputHessian>,
) -> Result<PrunedMatrix, moeprune_score::Error> {
    let fallback =
        Fallback { scorer: &Wanda::default(), pattern: &PerRow, rounding: Rounding::Exact };
    reconstruct_matrix(tensor, linear, hessian, ratio(0.5), sparsegpt, fallback)
}

pub(crate) const VECTOR_WEIGHTS: [f32; 8] = [1.0, -2.0, 0.5, 3.0, 0.2, 1.5, -1.0, 0.1];
pub(crate) const VECTOR_INPUTS: [f32; 12] =
    [1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 1.0];
