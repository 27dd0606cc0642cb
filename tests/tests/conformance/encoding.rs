//! Plain encodings against the suite, and one that the workspace does not have: four bits
//! per weight, two in a byte, and a scale per eight of a row.

use std::ops::Range;

use moeprune_core::{
    Dtype, Encoding, Error, LinearId, LinearView, Sparsity, StoredWeight, TensorBytes,
    encoding::{self, Companion, Float, Rows, RowsMut},
};
use moeprune_score::{
    Magnitude, PerRow, Rounding, mask_matrix, mask_weight, prune_weight, score_sum,
    weight_count_above, weight_score_sum,
};
use moeprune_tests::conformance::encoding::{check, check_with};

#[test]
fn numbers_by_themselves() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        check(encoding::of(dtype).expect("a number"));
    }
}

#[test]
fn every_weight_type_has_one() {
    for dtype in Dtype::ALL {
        let weight = [Dtype::F32, Dtype::F16, Dtype::BF16].contains(&dtype);
        assert_eq!(encoding::of(dtype).is_ok(), weight, "{dtype}");
        assert_eq!(Float::of(dtype).map(Float::dtype), weight.then_some(dtype));
    }
}

/// `(nibble − 8) · scale`, the lower nibble first.
#[derive(Debug)]
struct Int4;

static INT4: Int4 = Int4;

fn code(main: &[u8], element: usize) -> u8 {
    main[element / 2] >> (4 * (element % 2)) & 0xf
}

impl Encoding for Int4 {
    fn name(&self) -> &'static str {
        "int4"
    }

    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn companions(&self) -> &'static [Companion] {
        &[Companion { suffix: "_scale", dtypes: &[Dtype::F32] }]
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let (expected, got) = (main.iter().product::<usize>() / 4, companions[0].elements());
        if expected != got {
            return Err(Error::Length { what: "scales", expected, got });
        }
        let mut shape = main.to_vec();
        shape.iter_mut().last().into_iter().for_each(|cols| *cols *= 2);
        Ok(shape)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / 2)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let scales = rows.companions[0].to_f32().expect("their type was checked");
        let elements = (0..rows.count).flat_map(|row| columns.clone().map(move |col| (row, col)));
        for ((row, col), out) in elements.zip(out) {
            let scale = scales[((rows.first + row) * rows.cols() + col) / 8];
            *out = f32::from(code(rows.main, row * rows.cols() + col)) * scale - 8.0 * scale;
        }
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let element = row * rows.cols() + col;
        let (byte, shift) = (&mut rows.main[element / 2], 4 * (element % 2));
        *byte = *byte & !(0xf << shift) | 8 << shift;
        true
    }
}

fn int4(rows: usize, bytes: Vec<u8>, scales: &[f32]) -> Result<StoredWeight<'static>, Error> {
    let main = TensorBytes::new(Dtype::U8, [rows, bytes.len() / rows], bytes)?;
    let scales = TensorBytes::encode(Dtype::F32, [scales.len()], scales)?;
    StoredWeight::new(&INT4, main, vec![scales])
}

#[test]
fn packed_and_scaled() {
    check_with(&INT4, [1, 8], |rows, cols, byte| {
        let scales: Vec<f32> = (0..rows * cols / 8).map(|_| f32::from(byte()) + 0.5).collect();
        int4(rows, (0..rows * cols / 2).map(|_| byte()).collect(), &scales)
    });
}

#[test]
fn a_weight_that_does_not_fit_is_refused() {
    let check = |weight: Result<StoredWeight<'_>, Error>, expected: &str| {
        let error = weight.expect_err("does not fit").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(int4(1, vec![0; 4], &[1.0, 1.0]), "scales: expected 1 values, got 2");
    let bytes = || TensorBytes::new(Dtype::U8, [4], vec![0; 4]).expect("fits");
    check(StoredWeight::new(&INT4, bytes(), vec![]), "has 1 companions, not 0");
    check(StoredWeight::new(&INT4, bytes(), vec![bytes()]), "`_scale` is F32, not U8");
    check(StoredWeight::alone(bytes()), "cannot read U8");
    let floats = TensorBytes::encode(Dtype::F32, [1], &[1.0]).expect("fits");
    check(StoredWeight::new(&INT4, floats, vec![bytes()]), "its main tensor is U8, not F32");
}

/// Masks need no other place that knows how weights are stored.
#[test]
fn any_encoding_is_pruned_in_place() {
    let weight = int4(2, vec![0x9f, 0x8a, 0x07, 0x68, 0x1f, 0x9a, 0x70, 0x88], &[0.5, 2.0]);
    let weight = weight.expect("fits");
    let values = weight.to_f32();
    assert_eq!(values[..8], [3.5, 0.5, 1.0, 0.0, -0.5, -4.0, 0.0, -1.0]);
    let view = LinearView { layer: 0, id: LinearId::Router, rows: 2, cols: 8, inputs: None };
    let half = Sparsity::new(0.5).expect("a share");
    let companions = weight.companions().to_vec();
    // Decoding is exact, so everything is as of the decoded matrix.
    let decoded = TensorBytes::encode(Dtype::F32, [2, 8], &values).expect("fits");
    let mask = mask_weight(&weight, &view, half, &Magnitude, &PerRow, Rounding::Exact);
    let expected = mask_matrix(&decoded, &view, half, &Magnitude, &PerRow, Rounding::Exact);
    assert_eq!(mask.expect("finite weights"), expected.expect("finite weights"));
    let sum = weight_score_sum(&weight, &view, &Magnitude).expect("finite weights");
    assert_eq!(sum, score_sum(&decoded, &view, &Magnitude).expect("finite weights"));
    assert_eq!(weight_count_above(&weight, &view, &Magnitude, 1.0).expect("finite weights"), 8);

    let pruned = prune_weight(weight, &view, half, &Magnitude, &PerRow, Rounding::Exact);
    let pruned = pruned.expect("finite weights");
    assert_eq!(pruned.zeroed, 8);
    let after = StoredWeight::new(&INT4, pruned.tensor, companions).expect("the same shape");
    assert_eq!(after.to_f32()[..8], [3.5, 0.0, 1.0, 0.0, 0.0, -4.0, 0.0, -1.0]);
    assert!(after.to_f32().iter().zip(&values).all(|(&now, &was)| now == was || now == 0.0));
}
