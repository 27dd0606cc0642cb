//! Input that is refused, by name.

use moeprune_core::{
    Dtype, InputHessian, LinearView, Sparsity, StageError, TensorBytes, WeightReconstructor,
};
use moeprune_score::{MaskPattern, NOfM, PerRow, SparseGpt};

use crate::matrices::{REFERENCE, VECTOR_WEIGHTS, half, hessian, inputs, numbers, ratio, view};

#[test]
fn what_is_no_number_is_named() {
    let linear = view(3, 4);
    let good = hessian(&inputs(9, 4, 1), 4, 1);
    let says = |weights: &[f32], hessian: &InputHessian, says: &[&str]| {
        let tensor = TensorBytes::encode(Dtype::F32, [3, 4], weights).unwrap();
        let driven = half(&SparseGpt::default(), tensor, &linear, Some(hessian)).unwrap_err();
        let direct = SparseGpt::default()
            .reconstruct(&mut weights.to_vec(), &linear, hessian, ratio(0.5), &PerRow)
            .unwrap_err();
        assert_eq!(driven.to_string(), direct.to_string());
        assert!(direct.to_string().starts_with("layer 3 expert.7.up: "), "{direct}");
        for says in says {
            assert!(direct.to_string().contains(says), "{direct}");
        }
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut weights = numbers(12, 1);
        (weights[6], weights[9]) = (bad, bad);
        says(&weights, &good, &["weight at row 1, column 2", "damage in the checkpoint"]);
        let mut hessian = good.clone();
        (hessian.sums[11], hessian.sums[14]) = (bad, bad);
        says(&numbers(12, 1), &hessian, &["Hessian at row 2, column 3", "sum the inputs again"]);
    }
    let mut hessian = good.clone();
    hessian.sums[5] = -1.0;
    says(&numbers(12, 1), &hessian, &["Hessian at row 1, column 1 is -1"]);
    // Finite, but the double of it is not.
    hessian.sums[5] = 3e38;
    says(&numbers(12, 1), &hessian, &["Hessian at row 1, column 1 is 3"]);
    // Off the diagonal larger than on it.
    let indefinite: Vec<f32> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 50.0 }).collect();
    let indefinite = InputHessian::new(9, 1, 4, indefinite).unwrap();
    says(&numbers(12, 1), &indefinite, &["not positive definite", "damping of 0.01", "one of 10"]);
    // Larger than what they are divided by allows.
    let large = InputHessian { sums: good.sums.iter().map(|sum| sum * 1e30).collect(), ..good };
    says(&[3e38; 12], &large, &["score of the weight", "row 0, column 0"]);
}

#[test]
fn shapes_and_parameters_that_do_not_fit() {
    let hessian = hessian(&inputs(9, 4, 1), 4, 1);
    let refused = |sparsegpt: SparseGpt, linear: LinearView<'_>, says: &str| {
        let error = sparsegpt.reconstruct(
            &mut VECTOR_WEIGHTS.clone(),
            &linear,
            &hessian,
            ratio(0.5),
            &PerRow,
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(SparseGpt { block: 0, ..REFERENCE }, view(2, 4), "block is 0; it must be at least 1");
    for damping in [-0.01, f64::NAN, f64::INFINITY] {
        refused(SparseGpt { damping, ..REFERENCE }, view(2, 4), "damping is");
    }
    #[derive(Debug)]
    struct Checkers;
    impl MaskPattern for Checkers {
        fn mask_row(&self, _: &[f32], _: usize, _: &mut [bool]) {}
    }
    let mut weights = VECTOR_WEIGHTS;
    let error = REFERENCE.reconstruct(&mut weights, &view(2, 4), &hessian, ratio(0.5), &Checkers);
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "SparseGPT cannot follow the pattern Checkers; use whole rows or N:M groups");
    refused(REFERENCE, view(4, 2), "2 features but the statistics have 4");
    refused(REFERENCE, view(2, 5), "weights: expected 10 values, got 8");
    let short = InputHessian { sums: vec![1.0; 15], ..hessian.clone() };
    let error = REFERENCE.reconstruct(
        &mut VECTOR_WEIGHTS.clone(),
        &view(2, 4),
        &short,
        ratio(0.5),
        &PerRow,
    );
    assert!(error.is_err());
    // As large as can be, and none at all.
    let huge = NOfM::new(1, usize::MAX).unwrap();
    let cases: [(SparseGpt, &dyn MaskPattern); 4] = [
        (SparseGpt { block: usize::MAX, ..REFERENCE }, &PerRow),
        (REFERENCE, &huge),
        (SparseGpt { damping: 0.0, ..REFERENCE }, &PerRow),
        (SparseGpt { damping: 1e20, ..REFERENCE }, &PerRow),
    ];
    for (sparsegpt, pattern) in cases {
        let mut weights = VECTOR_WEIGHTS;
        sparsegpt.reconstruct(&mut weights, &view(2, 4), &hessian, ratio(0.5), pattern).unwrap();
        assert!(weights.iter().all(|w| w.is_finite()));
    }
    let tensor = TensorBytes::encode(Dtype::F32, [4, 2], &VECTOR_WEIGHTS).unwrap();
    let error = half(&REFERENCE, tensor, &view(2, 4), Some(&hessian)).unwrap_err();
    assert!(error.to_string().contains("shape [2, 4], got [4, 2]"), "{error}");
}

#[test]
fn custom_reconstructors() {
    #[derive(Debug)]
    struct Other(Result<f32, &'static str>);
    impl WeightReconstructor for Other {
        fn reconstruct(
            &self,
            weights: &mut [f32],
            _: &LinearView<'_>,
            _: &InputHessian,
            _: Sparsity,
            _: &dyn MaskPattern,
        ) -> Result<u64, StageError> {
            weights.fill(self.0?);
            Ok(if self.0 == Ok(0.0) { weights.len() as u64 } else { 0 })
        }
    }
    let linear = view(2, 4);
    let hessian = hessian(&inputs(9, 4, 1), 4, 1);
    let check = |other: Other, dtype: Dtype, says: &str| {
        let tensor = TensorBytes::encode(dtype, [2, 4], &VECTOR_WEIGHTS).unwrap();
        let error = half(&other, tensor, &linear, Some(&hessian)).unwrap_err().to_string();
        assert!(error.starts_with("layer 3 expert.7.up: "), "{error}");
        assert!(error.contains(says), "{error}");
    };
    check(Other(Err("not today")), Dtype::F32, "cannot reconstruct it: not today");
    check(Other(Ok(0.0)), Dtype::F32, "Other(Ok(0.0)) would zero all");
    check(Other(Ok(f32::NAN)), Dtype::F32, "row 0, column 0 became NaN");
    check(Other(Ok(65_520.0)), Dtype::F16, "row 0, column 0 became 65520, which F16 cannot hold");
    check(Other(Ok(f32::MAX)), Dtype::BF16, "BF16 cannot hold");
}
