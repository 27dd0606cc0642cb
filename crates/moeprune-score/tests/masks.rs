//! Masks against a stable sort, and what must hold of any mask.

use moeprune_core::{
    Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, TensorBytes, WeightScorer,
};
use moeprune_score::{
    Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, mask_matrix, prune_matrix,
};
use proptest::prelude::*;

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn view(rows: usize, cols: usize, inputs: Option<&InputMoments>) -> LinearView<'_> {
    LinearView { layer: 2, id: LinearId::Expert(1, MlpProjection::Down), rows, cols, inputs }
}

fn ratio(s: f64) -> Sparsity {
    Sparsity::new(s).unwrap()
}

/// A matrix and the moments of its input.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    cols: usize,
    weights: Vec<f32>,
    moments: Option<InputMoments>,
}

impl Case {
    fn linear(&self) -> LinearView<'_> {
        view(self.rows, self.cols, self.moments.as_ref())
    }

    fn tensor(&self, dtype: Dtype) -> TensorBytes<'static> {
        TensorBytes::encode(dtype, [self.rows, self.cols], &self.weights).unwrap()
    }
}

/// Full of ties, zeros of both signs, denormals (of f32, and of f16) and ordinary numbers.
fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-3i32..4).prop_map(|v| v as f32 / 2.0),
        2 => Just(0.0f32),
        2 => Just(-0.0f32),
        1 => (0u32..1 << 20).prop_map(f32::from_bits),
        1 => (1u32..40).prop_map(|v| v as f32 * 2f32.powi(-24)),
        3 => -8f32..8.0,
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (1usize..9, 1usize..40).prop_flat_map(|(rows, cols)| {
        let moments = prop::collection::vec(
            prop_oneof![Just(0.0f64), (0u32..4).prop_map(f64::from), 0f64..100.0],
            cols,
        );
        let moments = prop::option::of(moments.prop_map(|sum_squares| InputMoments {
            tokens: 9,
            calls: 2,
            sum_squares,
        }));
        (prop::collection::vec(weight(), rows * cols), moments)
            .prop_map(move |(weights, moments)| Case { rows, cols, weights, moments })
    })
}

/// The mask by sorting every row.
fn sorted_mask(case: &Case, weights: &[f32], s: Sparsity, rounding: Rounding) -> Vec<bool> {
    let wanda = Wanda::default();
    let linear = case.linear();
    let bound = wanda.bind(&linear).unwrap();
    let mut mask = vec![false; weights.len()];
    for row in 0..case.rows {
        let range = row * case.cols..(row + 1) * case.cols;
        let mut scores = vec![0.0; case.cols];
        bound.score_row(&weights[range.clone()], &mut scores);
        let mut order: Vec<usize> = (0..case.cols).collect();
        order.sort_by(|&a, &b| scores[a].partial_cmp(&scores[b]).unwrap());
        for &j in &order[..rounding.row_quota(row, case.rows, case.cols, s)] {
            mask[range.start + j] = true;
        }
    }
    mask
}

fn bools(mask: &moeprune_score::BitMask) -> Vec<bool> {
    (0..mask.rows() * mask.cols()).map(|i| mask.is_set(i / mask.cols(), i % mask.cols())).collect()
}

proptest! {
    #[test]
    fn a_mask_is_what_a_stable_sort_puts_first(case in case(), s in 0f64..1.0) {
        for dtype in DTYPES {
            let tensor = case.tensor(dtype);
            let weights = tensor.to_f32().unwrap();
            for rounding in [Rounding::Exact, Rounding::ReferenceFloor] {
                let linear = case.linear();
                let wanda = Wanda::default();
                let expected = sorted_mask(&case, &weights, ratio(s), rounding);
                let mask = mask_matrix(&tensor, &linear, ratio(s), &wanda, &PerRow, rounding);
                prop_assert_eq!(&bools(&mask.unwrap()), &expected);

                let pruned =
                    prune_matrix(tensor.clone(), &linear, ratio(s), &wanda, &PerRow, rounding)
                        .unwrap();
                prop_assert_eq!(pruned.zeroed, rounding.total(case.rows, case.cols, ratio(s)));
                let after = pruned.tensor.to_f32().unwrap();
                for ((after, before), gone) in after.iter().zip(&weights).zip(&expected) {
                    let wanted = if *gone { 0.0f32 } else { *before };
                    prop_assert_eq!(after.to_bits(), wanted.to_bits());
                }
            }
        }
    }

    #[test]
    fn a_larger_ratio_zeroes_more_of_the_same(case in case(), s in 0f64..1.0, t in 0f64..1.0) {
        let (s, t) = (s.min(t), s.max(t));
        let tensor = case.tensor(Dtype::BF16);
        for rounding in [Rounding::Exact, Rounding::ReferenceFloor] {
            let mask = |s| {
                let linear = case.linear();
                let wanda = Wanda::default();
                bools(&mask_matrix(&tensor, &linear, ratio(s), &wanda, &PerRow, rounding).unwrap())
            };
            for (small, large) in mask(s).into_iter().zip(mask(t)) {
                prop_assert!(large || !small);
            }
        }
    }

    #[test]
    fn quotas_add_up(rows in 1usize..2000, cols in 1usize..2000, s in 0f64..1.0) {
        let weights = rows as f64 * cols as f64;
        let of = |rounding: Rounding| {
            let quotas: Vec<usize> =
                (0..rows).map(|row| rounding.row_quota(row, rows, cols, ratio(s))).collect();
            assert_eq!(quotas.iter().sum::<usize>() as u64, rounding.total(rows, cols, ratio(s)));
            quotas
        };
        let exact = of(Rounding::Exact);
        let total = exact.iter().sum::<usize>() as f64;
        prop_assert!((total - weights * s).abs() <= 1.0 && total < weights);
        prop_assert!(exact.iter().max().unwrap() - exact.iter().min().unwrap() <= 1);
        let floor = of(Rounding::ReferenceFloor);
        prop_assert!(floor.iter().all(|&q| q == (cols as f64 * s) as usize));
    }

    #[test]
    fn groups_lose_their_lowest(
        scores in prop::collection::vec(prop_oneof![0f32..1.0, (0u32..3).prop_map(|v| v as f32)], 0..100),
        (n, m) in (1usize..40).prop_flat_map(|m| (0..m, Just(m))),
    ) {
        let mut mask = vec![false; scores.len()];
        NOfM::new(n, m).unwrap().mask_row(&scores, 0, &mut mask);
        for (scores, mask) in scores.chunks(m).zip(mask.chunks(m)) {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[a].partial_cmp(&scores[b]).unwrap());
            let mut expected = vec![false; scores.len()];
            for &j in &order[..scores.len() * n / m] {
                expected[j] = true;
            }
            prop_assert_eq!(mask, expected);
        }
    }
}

#[test]
fn reference_rounding_is_pythons_int() {
    let check = |cols: usize, s: f64, expected: usize| {
        assert_eq!(Rounding::ReferenceFloor.row_quota(0, 9, cols, ratio(s)), expected);
    };
    check(100, 0.29, 28);
    check(100, 0.57, 56);
    check(10, 0.7, 7);
    check(7168, 0.65, 4659);
    check(4864, 0.5625, 2736);
    check(3, 1.0 - f64::EPSILON / 2.0, 2);
    check(1, 0.999, 0);
}

#[test]
fn rows_share_what_does_not_divide() {
    let check = |rows: usize, cols: usize, s: f64, expected: &[usize]| {
        let quotas: Vec<usize> =
            (0..rows).map(|r| Rounding::Exact.row_quota(r, rows, cols, ratio(s))).collect();
        assert_eq!(quotas, expected, "{rows} x {cols} at {s}");
    };
    check(4, 5, 0.0, &[0, 0, 0, 0]);
    check(4, 5, 0.5, &[3, 3, 2, 2]);
    check(1, 100, 0.29, &[29]);
    check(4, 1, 0.5, &[1, 1, 0, 0]);
    check(1, 1, 0.9, &[0]);
    check(2, 2, 0.999, &[2, 1]);
    check(2, 2, 1.0 - f64::EPSILON / 2.0, &[2, 1]);
}

/// A pseudo-random matrix that needs the sampled selection.
fn wide() -> (Vec<f32>, InputMoments) {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights = (0..64 * 3000).map(|_| next() * next()).collect();
    let sum_squares = (0..3000).map(|_| f64::from(next().abs())).collect();
    (weights, InputMoments { tokens: 5, calls: 1, sum_squares })
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let (weights, moments) = wide();
    for dtype in DTYPES {
        let tensor = TensorBytes::encode(dtype, [64, 3000], &weights).unwrap();
        let results = [1, 2, 8].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let linear = view(64, 3000, Some(&moments));
                let wanda = Wanda::default();
                let sum = moeprune_score::score_sum(&tensor, &linear, &wanda).unwrap();
                let exact = Rounding::Exact;
                let pruned =
                    prune_matrix(tensor.clone(), &linear, ratio(0.47), &wanda, &PerRow, exact);
                (pruned.unwrap(), sum.sum.to_bits())
            })
        });
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
        assert_eq!(results[0].0.zeroed, (64.0 * 3000.0 * 0.47f64).round() as u64);
    }
}

#[test]
fn magnitude_needs_no_inputs_and_wanda_does_without() {
    let weights = [3.0, -1.0, 2.0, 0.5, 0.25, -4.0];
    let tensor = || TensorBytes::encode(Dtype::F32, [2, 3], &weights).unwrap();
    let expected = [3.0, 0.0, 2.0, 0.5, 0.0, -4.0];
    let no_tokens = InputMoments::new(3);
    let silent = InputMoments { tokens: 7, calls: 1, sum_squares: vec![0.0; 3] };
    let check = |scorer: &dyn WeightScorer, inputs: Option<&InputMoments>, fallback: bool| {
        let linear = view(2, 3, inputs);
        let pruned =
            prune_matrix(tensor(), &linear, ratio(0.4), scorer, &PerRow, Rounding::Exact).unwrap();
        assert_eq!(pruned.tensor.to_f32().unwrap(), expected);
        assert_eq!(pruned.fallback, fallback);
    };
    check(&Magnitude, None, false);
    check(&Magnitude, Some(&no_tokens), false);
    check(&Wanda::default(), None, true);
    check(&Wanda::default(), Some(&no_tokens), true);
    check(&Wanda::default(), Some(&silent), true);
}

/// The worked example of the method's description.
#[test]
fn a_small_matrix_by_hand() {
    let moments = InputMoments { tokens: 3, calls: 1, sum_squares: vec![5.0, 2.0, 5.0, 2.0] };
    let weights = [1.0, -2.0, 0.5, 3.0, 0.2, 1.5, -1.0, 0.1];
    let tensor = TensorBytes::encode(Dtype::F32, [2, 4], &weights).unwrap();
    let linear = view(2, 4, Some(&moments));
    let mask =
        mask_matrix(&tensor, &linear, ratio(0.5), &Wanda::default(), &PerRow, Rounding::Exact);
    assert_eq!(mask.unwrap().bytes(), [0b1010_0000, 0b1001_0000]);
}
