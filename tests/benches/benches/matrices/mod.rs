//! Matrices like a trained model's, and pools to work on them in.

use moeprune_core::{
    Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, TensorBytes,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A matrix of normally distributed weights, and the moments of inputs of which some features are
/// far larger than others.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) tensor: TensorBytes<'static>,
    inputs: InputMoments,
}

impl Matrix {
    pub(crate) fn new(dtype: Dtype, rows: usize, cols: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        // Twelve uniform numbers make a good enough bell.
        let mut normal = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let weights: Vec<f32> = (0..rows * cols).map(|_| normal() * 0.02).collect();
        let sum_squares = (0..cols).map(|_| f64::from(normal() * 1.5).exp()).collect();
        Self {
            rows,
            cols,
            tensor: TensorBytes::encode(dtype, [rows, cols], &weights).expect("a float type"),
            inputs: InputMoments { tokens: 4096, calls: 2, sum_squares },
        }
    }

    pub(crate) fn linear(&self) -> LinearView<'_> {
        let id = LinearId::Expert(0, MlpProjection::Gate);
        LinearView { layer: 0, id, rows: self.rows, cols: self.cols, inputs: Some(&self.inputs) }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}x{} {}", self.rows, self.cols, self.tensor.dtype())
    }

    #[allow(dead_code, reason = "not every bench counts bytes")]
    pub(crate) fn size(&self) -> u64 {
        self.tensor.bytes().len() as u64
    }
}

/// A pool of one thread, and one of as many as there are cores.
pub(crate) fn pools() -> Vec<(String, ThreadPool)> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
    let pool = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        (format!("{threads} thread{}", if threads == 1 { "" } else { "s" }), pool)
    };
    counts.into_iter().map(pool).collect()
}

#[allow(dead_code, reason = "not every bench prunes")]
pub(crate) fn ratio(share: f64) -> Sparsity {
    Sparsity::new(share).expect("a share")
}
