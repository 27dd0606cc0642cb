//! Masks on weights in codes.

use moeprune_core::{
    Dtype, GgmlType, LinearId, LinearView, MlpProjection, Sparsity, StoredWeight, TensorBytes,
    encoding::{GptqLabel, SharedEncoding, gptq::Gptq},
};
use moeprune_score::{
    Error, Magnitude, MaskPattern, NOfM, PerRow, PrunedMatrix, Rounding, mask_matrix, mask_weight,
    prune_weight,
};

const INPUTS: usize = 16;
const GROUPS: usize = 2;

fn view(rows: usize, cols: usize) -> LinearView<'static> {
    let id = LinearId::Expert(1, MlpProjection::Up);
    LinearView { layer: 2, id, rows, cols, inputs: None }
}

/// A weight in GPTQ whose zero points are stored as 7 but for the one of group 1 of output 3.
fn gptq(version: GptqLabel, rows: usize, zero: u8) -> StoredWeight<'static> {
    let tensor = |dtype, shape: [usize; 2], bytes: Vec<u8>| {
        TensorBytes::new(dtype, shape, bytes).expect("fits")
    };
    let mut state = 7_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let codes = (0..rows * INPUTS / 2).map(|_| byte()).collect();
    let codes = tensor(Dtype::I32, [INPUTS / 8, rows], codes);
    let mut zeros = vec![0x77; GROUPS * rows / 2];
    zeros[rows / 2 + 1] = 0x7 | zero << 4;
    let zeros = tensor(Dtype::I32, [GROUPS, rows / 8], zeros);
    // The weights of that group are the smallest of their row but for one that is zero.
    let scale = |at: usize| if at == rows + 3 { 1e-3 } else { 0.5 + at as f32 / 256.0 };
    let scales: Vec<f32> = (0..GROUPS * rows).map(scale).collect();
    let scales = TensorBytes::encode(Dtype::F16, [GROUPS, rows], &scales).expect("fits");
    let encoding = SharedEncoding::new(Gptq::new(version, false));
    StoredWeight::new(encoding, codes, vec![zeros, scales]).expect("fits")
}

fn half_pruned(weight: &StoredWeight<'_>) -> Result<PrunedMatrix, Error> {
    let linear = view(weight.rows(), weight.cols());
    let half = Sparsity::new(0.5).expect("a share");
    prune_weight(weight.view(), &linear, half, &Magnitude, &PerRow, Rounding::Exact)
}

#[test]
fn masks_of_a_transpose_are_those_of_its_values() {
    for rows in [8, 64, 72, 200] {
        let weight = gptq(GptqLabel::V1, rows, 7);
        let (linear, half) = (view(rows, INPUTS), Sparsity::new(0.5).expect("a share"));
        let values = TensorBytes::encode(Dtype::F32, [rows, INPUTS], &weight.to_f32());
        let values = values.expect("fits");
        let got = mask_weight(&weight, &linear, half, &Magnitude, &PerRow, Rounding::Exact);
        let expected = mask_matrix(&values, &linear, half, &Magnitude, &PerRow, Rounding::Exact);
        let (got, expected) = (got.expect("masks"), expected.expect("masks"));
        let at = (0..rows * INPUTS).map(|at| (at / INPUTS, at % INPUTS));
        for (row, col) in at {
            assert_eq!(got.is_set(row, col), expected.is_set(row, col), "{row} {col} of {rows}");
        }
    }
}

#[test]
fn groups_without_a_zero_code_stay_and_are_counted() {
    let weight = gptq(GptqLabel::V1, 72, 15);
    let pruned = half_pruned(&weight).expect("others go");
    // The smallest of row 3, which would all go, have none; as many others go.
    assert_eq!((pruned.zeroed, pruned.without_zero), (576, 8));
    let was = weight.to_f32();
    let now = weight.with_main(pruned.tensor).expect("fits").to_f32();
    let row = 3 * INPUTS..4 * INPUTS;
    assert_eq!(now[row.clone()][8..], was[row.clone()][8..]);
    assert!(now[row][..8].iter().all(|value| *value == 0.0));
    for (version, zero) in [(GptqLabel::V1, 14), (GptqLabel::V2, 15)] {
        let pruned = half_pruned(&gptq(version, 72, zero)).expect("every group has a zero");
        assert_eq!((pruned.zeroed, pruned.without_zero), (576, 0));
    }
}

#[test]
fn what_is_left_of_a_row_is_all_that_goes() {
    let weight = gptq(GptqLabel::V1, 72, 15);
    let linear = view(72, INPUTS);
    let check = |ratio: f64, pattern: &dyn MaskPattern, zeroed: u64| {
        let ratio = Sparsity::new(ratio).expect("a share");
        let rounding = Rounding::Exact;
        let pruned = prune_weight(weight.view(), &linear, ratio, &Magnitude, pattern, rounding);
        assert_eq!(pruned.expect("others go").zeroed, zeroed);
    };
    check(0.75, &PerRow, 72 * 12 - 4);
    check(0.5, &NOfM::new(2, 4).expect("is one"), 72 * 8 - 4);
}

#[test]
fn blocks_of_ggml_are_not_zeroed() {
    let kind = GgmlType::from_id(2).expect("is known");
    let main = TensorBytes::new(Dtype::Ggml(kind), [2, 32], vec![1; 36]).expect("fits");
    let weight = StoredWeight::alone(main).expect("is decoded");
    let message = half_pruned(&weight).expect_err("is read only").to_string();
    let expected =
        "layer 2 expert.1.up: weights stored as Q4_0 are read only: zeroing weights is for";
    assert!(message.starts_with(expected), "{message}");
}
