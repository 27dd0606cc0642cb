//! Input that must be refused, or survived.

use moeprune_core::{
    BoundScorer, Dtype, InputMoments, LinearId, LinearView, Sparsity, StageError, TensorBytes,
    WeightScorer,
};
use moeprune_score::{
    Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, count_above, mask_matrix,
    outlier_percent, prune_matrix, score_sum,
};

fn view(rows: usize, cols: usize, inputs: Option<&InputMoments>) -> LinearView<'_> {
    LinearView { layer: 3, id: LinearId::Router, rows, cols, inputs }
}

fn f32s(rows: usize, cols: usize, values: &[f32]) -> TensorBytes<'static> {
    TensorBytes::encode(Dtype::F32, [rows, cols], values).unwrap()
}

fn half() -> Sparsity {
    Sparsity::new(0.5).unwrap()
}

fn refused(
    tensor: &TensorBytes<'_>,
    linear: &LinearView<'_>,
    scorer: &dyn WeightScorer,
    says: &str,
) {
    let mask = mask_matrix(tensor, linear, half(), scorer, &PerRow, Rounding::Exact).unwrap_err();
    let prune =
        prune_matrix(tensor.clone(), linear, half(), scorer, &PerRow, Rounding::Exact).unwrap_err();
    let sum = score_sum(tensor, linear, scorer).unwrap_err();
    let count = count_above(tensor, linear, scorer, 0.0).unwrap_err();
    for error in [mask, prune, sum, count] {
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().starts_with("layer 3 router"), "{error}");
    }
}

#[test]
fn weights_that_are_no_numbers() {
    let place = "row 1, column 2";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let values = [1.0, 2.0, 3.0, 4.0, 5.0, bad, 7.0, bad, 9.0];
            let tensor = TensorBytes::encode(dtype, [3, 3], &values).unwrap();
            refused(&tensor, &view(3, 3, None), &Magnitude, place);
            // Also where the feature was always zero: infinity times zero is no number.
            let moments = InputMoments { tokens: 1, calls: 1, sum_squares: vec![1.0, 1.0, 0.0] };
            refused(&tensor, &view(3, 3, Some(&moments)), &Wanda::default(), place);
        }
    }
}

#[test]
fn the_first_bad_row_is_named_on_any_number_of_threads() {
    let mut values = vec![1.0; 500 * 8];
    for row in [123, 124, 300, 499] {
        values[row * 8 + 5] = f32::NAN;
    }
    refused(&f32s(500, 8, &values), &view(500, 8, None), &Magnitude, "row 123, column 5");
}

#[test]
fn moments_that_are_no_sums_of_squares() {
    let tensor = f32s(1, 2, &[1.0, 2.0]);
    for bad in [f64::NAN, -1.0, f64::INFINITY, 1e300] {
        let moments = InputMoments { tokens: 2, calls: 1, sum_squares: vec![1.0, bad] };
        refused(&tensor, &view(1, 2, Some(&moments)), &Wanda::default(), "feature 1");
    }
    let moments = InputMoments { tokens: 2, calls: 0, sum_squares: vec![1.0, 1.0] };
    refused(&tensor, &view(1, 2, Some(&moments)), &Wanda::default(), "no calls");
    // Finite weight, finite norm, infinite score.
    let moments = InputMoments { tokens: 1, calls: 1, sum_squares: vec![1.0, 1e38] };
    let large = f32s(1, 2, &[1.0, f32::MAX]);
    refused(&large, &view(1, 2, Some(&moments)), &Wanda::default(), "is inf");
}

#[test]
fn shapes_and_types_that_do_not_fit() {
    let tensor = f32s(2, 3, &[1.0; 6]);
    refused(&tensor, &view(3, 2, None), &Magnitude, "shape [3, 2], got [2, 3]");
    let cube = TensorBytes::encode(Dtype::F32, [1, 2, 3], &[1.0; 6]).unwrap();
    refused(&cube, &view(2, 3, None), &Magnitude, "shape [2, 3], got [1, 2, 3]");
    let moments = InputMoments { tokens: 1, calls: 1, sum_squares: vec![1.0; 2] };
    refused(&tensor, &view(2, 3, Some(&moments)), &Magnitude, "3 features");
    for dtype in [Dtype::F64, Dtype::F8_E4M3, Dtype::I32] {
        let tensor = TensorBytes::new(dtype, [1, 1], vec![0; dtype.bytes_of(1).unwrap()]).unwrap();
        refused(&tensor, &view(1, 1, None), &Magnitude, &format!("cannot prune {dtype}"));
    }
}

#[test]
fn empty_and_tiny_matrices() {
    let check = |rows: usize, cols: usize, s: f64, zeroed: u64| {
        for scorer in [&Magnitude as &dyn WeightScorer, &Wanda::default()] {
            for pattern in [&PerRow as &dyn MaskPattern, &NOfM::new(0, 4).unwrap()] {
                let tensor = f32s(rows, cols, &vec![1.0; rows * cols]);
                let (linear, s) = (view(rows, cols, None), Sparsity::new(s).unwrap());
                let mask = mask_matrix(&tensor, &linear, s, scorer, pattern, Rounding::Exact);
                let pruned = prune_matrix(tensor, &linear, s, scorer, pattern, Rounding::Exact);
                let expected = if pattern.fixed_ratio().is_some() { 0 } else { zeroed };
                assert_eq!(mask.unwrap().count(), expected);
                assert_eq!(pruned.unwrap().zeroed, expected);
            }
        }
    };
    let almost = 1.0 - f64::EPSILON / 2.0;
    check(0, 0, 0.5, 0);
    check(0, 5, 0.5, 0);
    check(5, 0, 0.5, 0);
    check(1, 1, almost, 0);
    check(4, 1, 0.5, 2);
    check(4, 1, almost, 3);
    check(3, 3, almost, 8);
    check(3, 3, 0.0, 0);
}

#[test]
fn groups_that_are_none() {
    for (n, m) in [(0, 0), (1, 0), (4, 4), (5, 4), (usize::MAX, 1)] {
        let error = NOfM::new(n, m).unwrap_err().to_string();
        assert!(error.contains("n must be below m"), "{error}");
    }
    let huge = NOfM::new(usize::MAX - 1, usize::MAX).unwrap();
    let mut mask = [false; 3];
    huge.mask_row(&[1.0, 2.0, 3.0], 0, &mut mask);
    assert_eq!(mask, [true, true, false]);
}

#[test]
fn a_pattern_cannot_zero_a_whole_matrix() {
    #[derive(Debug)]
    struct Everything;
    impl MaskPattern for Everything {
        fn mask_row(&self, _: &[f32], _: usize, mask: &mut [bool]) {
            mask.fill(true);
        }
    }
    let (tensor, linear) = (f32s(2, 2, &[1.0; 4]), view(2, 2, None));
    let error = prune_matrix(tensor, &linear, half(), &Magnitude, &Everything, Rounding::Exact);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("Everything would zero all"), "{error}");
}

#[test]
fn a_scorer_that_breaks_its_promise() {
    #[derive(Debug)]
    struct Signed;
    impl WeightScorer for Signed {
        fn bind<'a>(&'a self, _: &LinearView<'a>) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
            Ok(Box::new(|row: &[f32], scores: &mut [f32]| scores.copy_from_slice(row)))
        }
    }
    #[derive(Debug)]
    struct Refuses;
    impl WeightScorer for Refuses {
        fn bind<'a>(&'a self, _: &LinearView<'a>) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
            Err("not today".into())
        }
    }
    let tensor = f32s(1, 2, &[1.0, -2.0]);
    refused(&tensor, &view(1, 2, None), &Signed, "is -2");
    refused(&tensor, &view(1, 2, None), &Refuses, "not today");
    // Minus zero is not negative.
    let zeros = f32s(1, 4, &[0.0, -0.0, 0.0, 1.0]);
    let linear = view(1, 4, None);
    let mask = mask_matrix(&zeros, &linear, half(), &Signed, &PerRow, Rounding::Exact).unwrap();
    assert_eq!(mask.bytes(), [0b1100_0000]);
}

#[test]
fn idle_linears_have_no_outliers() {
    let moments = InputMoments { tokens: 1, calls: 1, sum_squares: vec![1.0, 1.0] };
    let heard = (f32s(1, 2, &[1.0, 100.0]), view(1, 2, Some(&moments)));
    let idle = (f32s(1, 2, &[1e6, 1e6]), view(1, 2, None));
    let wanda = Wanda::default();
    let percent = |linears: &[_]| outlier_percent(linears, &wanda, 1.5).unwrap();
    assert_eq!(percent(&[heard.clone(), idle.clone()]), Some(50.0));
    assert_eq!(percent(std::slice::from_ref(&idle)), None);
    assert_eq!(percent(&[]), None);
    assert_eq!(outlier_percent(&[heard, idle], &Magnitude, 1.5).unwrap(), Some(50.0));
}
