//! What [`WeightReconstructor`] promises.

use moeprune_core::{
    InputHessian, LinearId, LinearView, MlpProjection, Sparsity, WeightReconstructor,
};
use moeprune_score::PerRow;
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a reconstructor to its contract:
///
/// * it returns the number of weights that are zero now and were not, or more if it chose zeros, and
///   never leaves none;
/// * it zeroes the requested share as closely as a row and a column, where no input was always zero;
/// * what it zeroes is plus zero, and what stays is finite;
/// * it gives the same weights each time, from any thread;
/// * a share of zero changes no weight.
///
/// # Panics
/// If one of these is broken.
pub fn check(reconstructor: &dyn WeightReconstructor) {
    for_all(&(matrices(), 0.0f64..0.9), |(matrix, share)| {
        let asked = Sparsity::new(share).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (zeroed, weights) =
            pure(|| matrix.run(reconstructor, asked))?.map_err(TestCaseError::fail)?;
        let zeros = weights.iter().filter(|bits| **bits == 0).count();
        prop_assert_eq!(zeros as u64, zeroed, "zeros, and what it says");
        let all = matrix.rows * matrix.cols;
        prop_assert!(zeros < all, "nothing is left");
        let off = (zeros as f64 - share * all as f64).abs();
        prop_assert!(off <= (matrix.rows + matrix.cols) as f64, "{} of {} zeroed", zeros, all);
        let finite = weights.iter().all(|bits| f32::from_bits(*bits).is_finite());
        prop_assert!(finite, "weights that are not finite");
        let (zeroed, same) =
            matrix.run(reconstructor, Sparsity::ZERO).map_err(TestCaseError::fail)?;
        prop_assert_eq!(zeroed, 0);
        let before: Vec<u32> = matrix.weights.iter().map(|w| w.to_bits()).collect();
        prop_assert_eq!(same, before, "a share of zero");
        Ok(())
    });
}

#[derive(Debug, Clone)]
struct Matrix {
    rows: usize,
    cols: usize,
    /// None is zero.
    weights: Vec<f32>,
    hessian: InputHessian,
}

impl Matrix {
    fn run(
        &self,
        reconstructor: &dyn WeightReconstructor,
        ratio: Sparsity,
    ) -> Result<(u64, Vec<u32>), String> {
        let id = LinearId::Expert(0, MlpProjection::Up);
        let (rows, cols) = (self.rows, self.cols);
        let linear = LinearView { layer: 0, id, rows, cols, inputs: None };
        let mut weights = self.weights.clone();
        let zeroed = reconstructor
            .reconstruct(&mut weights, &linear, &self.hessian, ratio, &PerRow)
            .map_err(|error| error.to_string())?;
        Ok((zeroed, weights.iter().map(|w| w.to_bits()).collect()))
    }
}

/// With more tokens than inputs, none of which is always zero.
fn matrices() -> impl Strategy<Value = Matrix> {
    (2usize..12, 2usize..24).prop_flat_map(|(rows, cols)| {
        let weights = prop::collection::vec((0.1f32..2.0, any::<bool>()), rows * cols);
        let inputs = prop::collection::vec(prop::collection::vec(0.1f32..1.0, cols), 3 * cols);
        (weights, inputs).prop_map(move |(weights, inputs)| {
            let mut sums = vec![0.0; cols * cols];
            for x in &inputs {
                for (sum, (i, j)) in
                    sums.iter_mut().zip((0..cols).flat_map(|i| (0..cols).map(move |j| (i, j))))
                {
                    *sum += x[i] * x[j];
                }
            }
            let signed = weights.into_iter().map(|(w, negative)| if negative { -w } else { w });
            let tokens = inputs.len() as u64;
            let hessian = InputHessian { tokens, calls: 1, features: cols, sums };
            Matrix { rows, cols, weights: signed.collect(), hessian }
        })
    })
}
