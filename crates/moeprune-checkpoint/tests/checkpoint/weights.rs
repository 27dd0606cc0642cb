//! Operations on stored weights against obvious ones.

use moeprune_checkpoint::{Error, average, average_of, check_finite, count_zeros, select_rows};
use moeprune_core::{Dtype, TensorBytes};
use proptest::prelude::*;

use crate::fixture::check_refused;

const WEIGHTS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn encode(dtype: Dtype, shape: &[usize], values: &[f32]) -> TensorBytes<'static> {
    TensorBytes::encode(dtype, shape, values).expect("encodes")
}

#[test]
fn zeros_of_either_sign() {
    for dtype in WEIGHTS {
        let count =
            |values: &[f32]| count_zeros(&encode(dtype, &[values.len()], values)).expect("counts");
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[0.0, -0.0, 1.0, -1.0]), 2);
        assert_eq!(count(&vec![0.0; 100_001]), 100_001);
        assert_eq!(count(&vec![-0.5; 10_000]), 0);
    }
    let smallest = TensorBytes::new(Dtype::BF16, [2], vec![1, 0, 1, 0x80]).expect("fits");
    assert_eq!(count_zeros(&smallest).expect("counts"), 0);
    let bytes = TensorBytes::new(Dtype::U8, [1], vec![0]).expect("fits");
    check_refused(count_zeros(&bytes), &["U8"]);
}

#[test]
fn the_first_weight_that_is_no_number() {
    for dtype in WEIGHTS {
        for (at, position) in
            [(0, "row 0, column 0"), (5000, "row 50, column 0"), (9999, "row 99, column 99")]
        {
            for (value, shown) in
                [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-f32::INFINITY, "-inf")]
            {
                let mut values = vec![65504.0; 10_000];
                check_finite("w", &encode(dtype, &[100, 100], &values)).expect("finite");
                values[at] = value;
                let tensor = encode(dtype, &[100, 100], &values);
                check_refused(check_finite("w", &tensor), &["`w`", shown, position]);
            }
        }
    }
    check_refused(check_finite("n", &encode(Dtype::F32, &[2], &[1.0, f32::NAN])), &["at index 1"]);
    let largest = TensorBytes::new(Dtype::BF16, [1], vec![0x7f, 0x7f]).expect("fits");
    check_finite("w", &largest).expect("finite");
    let bytes = TensorBytes::new(Dtype::U8, [1], vec![0xff]).expect("fits");
    check_finite("w", &bytes).expect("not a weight");
}

#[test]
fn rows_that_do_not_exist() {
    let router = encode(Dtype::BF16, &[3, 2], &[0.0; 6]);
    check_refused(select_rows(&router, &[0, 3]), &["row 3 of a tensor with 3 rows"]);
    check_refused(select_rows(&encode(Dtype::F32, &[], &[1.0]), &[0]), &["a scalar has no rows"]);
    let halves = TensorBytes::new(Dtype::F4, [2, 1], vec![0]).expect("fits");
    check_refused(select_rows(&halves, &[0]), &["no whole number of bytes"]);
    assert_eq!(select_rows(&router, &[]).expect("none").shape(), [0, 2]);
    let scores = encode(Dtype::F32, &[3], &[1.0, 2.0, 3.0]);
    assert_eq!(select_rows(&scores, &[2]).expect("one").to_f32().expect("decodes"), [3.0]);
}

#[test]
fn averages_of_what_does_not_match() {
    let a = encode(Dtype::BF16, &[2], &[1.0, 2.0]);
    check_refused(average(&[]), &["no tensors"]);
    check_refused(
        average(&[a.clone(), encode(Dtype::F32, &[2], &[1.0, 2.0])]),
        &["BF16 [2] and one of F32 [2]"],
    );
    check_refused(average(&[a.clone(), encode(Dtype::BF16, &[1, 2], &[1.0, 2.0])]), &["[1, 2]"]);
    let bytes = TensorBytes::new(Dtype::U8, [1], vec![0]).expect("fits");
    check_refused(average(&[bytes]), &["U8"]);
    assert_eq!(average(std::slice::from_ref(&a)).expect("averages"), a);
}

/// As [`average`] does, with the same refusals.
#[test]
fn streamed_averages() {
    let check = |tensors: &[TensorBytes<'static>]| {
        let mut asked = Vec::new();
        let streamed = average_of(tensors.len(), |member| {
            asked.push(member);
            Ok::<_, Error>(tensors[member].clone())
        });
        match (streamed, average(tensors)) {
            (Ok(streamed), Ok(whole)) => {
                assert_eq!(asked, (0..tensors.len()).collect::<Vec<_>>());
                assert_eq!(streamed, whole);
            }
            (streamed, whole) => {
                let whole = whole.expect_err("as streamed").to_string();
                check_refused(streamed, &[&whole]);
            }
        }
    };
    let large = |i: usize| {
        let values: Vec<f32> =
            (0..40_000).map(|j| ((i * 7919 + j * 104_729) % 6007) as f32 / 13.0 - 200.0).collect();
        encode(Dtype::BF16, &[200, 200], &values)
    };
    check(&[0, 1, 2].map(large));
    check(&[large(0)]);
    check(&[]);
    check(&[large(0), encode(Dtype::F32, &[2], &[1.0, 2.0])]);
    check(&[encode(Dtype::F16, &[0], &[]), encode(Dtype::F16, &[0], &[])]);
    check(&[TensorBytes::new(Dtype::U8, [1], vec![0]).expect("fits")]);
    let failing = average_of(2, |member| match member {
        0 => Ok(large(0)),
        _ => Err(Error::Weight { operation: "test", reason: "is gone".to_owned() }),
    });
    check_refused(failing, &["is gone"]);
}

proptest! {
    #[test]
    fn averages_are_those_of_f32(
        values in prop::collection::vec(prop::collection::vec(-1e4_f32..1e4, 7), 1..5),
        dtype in prop::sample::select(WEIGHTS.to_vec()),
    ) {
        let tensors: Vec<_> = values.iter().map(|v| encode(dtype, &[7], v)).collect();
        let decoded: Vec<_> = tensors.iter().map(|t| t.to_f32().expect("decodes")).collect();
        let expected: Vec<f32> = (0..7)
            .map(|i| {
                let mut sum = decoded[0][i];
                for tensor in &decoded[1..] {
                    sum += tensor[i];
                }
                sum / decoded.len() as f32
            })
            .collect();
        prop_assert_eq!(average(&tensors).expect("averages"), encode(dtype, &[7], &expected));
        let streamed = average_of(tensors.len(), |i| Ok::<_, Error>(tensors[i].clone()));
        prop_assert_eq!(streamed.expect("averages"), encode(dtype, &[7], &expected));
    }

    #[test]
    fn rows_are_rows(rows in prop::collection::vec(0..5_usize, 0..8)) {
        let values: Vec<f32> = (0..15_u8).map(f32::from).collect();
        let got = select_rows(&encode(Dtype::F16, &[5, 3], &values), &rows).expect("selects");
        let expected: Vec<f32> =
            rows.iter().flat_map(|&r| values[3 * r..3 * r + 3].to_vec()).collect();
        prop_assert_eq!(got.shape(), &[rows.len(), 3]);
        prop_assert_eq!(got.to_f32().expect("decodes"), expected);
    }

    #[test]
    fn zeros_are_counted(bits in prop::collection::vec(prop::sample::select(vec![0_u16, 0x8000, 1, 0x3f80, 0x7f80]), 0..200)) {
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let tensor = TensorBytes::new(Dtype::BF16, [bits.len()], bytes).expect("fits");
        let expected = tensor.to_f32().expect("decodes").iter().filter(|v| **v == 0.0).count();
        prop_assert_eq!(count_zeros(&tensor).expect("counts"), expected as u64);
    }
}
