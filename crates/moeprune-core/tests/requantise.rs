//! New values for weights in codes.

use moeprune_core::{
    Dtype, StoredWeight, TensorBytes,
    encoding::{NewRows, Rows, SharedEncoding, fp8, int4, mxfp4, nvfp4},
};

const ROWS: usize = 6;
const COLS: usize = 64;

/// Numbers that look like weights.
fn numbers(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (uniform() + uniform() + uniform()) * size).collect()
}

fn tensor(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> TensorBytes<'static> {
    TensorBytes::new(dtype, shape.to_vec(), bytes).unwrap()
}

fn ones(dtype: Dtype, shape: &[usize]) -> TensorBytes<'static> {
    TensorBytes::encode(dtype, shape.to_vec(), &vec![1.0; shape.iter().product()]).unwrap()
}

/// A weight whose codes are all zero bytes, in each encoding that is written.
fn weights() -> Vec<StoredWeight<'static>> {
    let fp8 = |sharing, scale| {
        let encoding = fp8::Fp8::new(sharing, ".weight_scale").unwrap();
        let main = tensor(Dtype::F8_E4M3, &[ROWS, COLS], vec![0; ROWS * COLS]);
        StoredWeight::new(SharedEncoding::new(encoding), main, vec![scale]).unwrap()
    };
    let codes = |shape: &[usize]| tensor(Dtype::U8, shape, vec![0; ROWS * COLS / 2]);
    let bytes = |dtype, groups, byte| tensor(dtype, &[ROWS, groups], vec![byte; ROWS * groups]);
    let one = || ones(Dtype::F32, &[1]);
    let shape = [ROWS as i32, COLS as i32].map(i32::to_le_bytes).concat();
    let int4 = vec![ones(Dtype::BF16, &[ROWS, 4]), tensor(Dtype::I32, &[2], shape)];
    let packed = tensor(Dtype::I32, &[ROWS, COLS / 8], vec![0; ROWS * COLS / 2]);
    vec![
        fp8(fp8::Sharing::Tensor, ones(Dtype::F32, &[1])),
        fp8(fp8::Sharing::Channel, ones(Dtype::BF16, &[ROWS, 1])),
        fp8(fp8::Sharing::Block([4, 48]), ones(Dtype::F32, &[2, 2])),
        fp8(fp8::Sharing::Block([4, 48]), tensor(Dtype::F8_E8M0, &[2, 2], vec![127; 4])),
        StoredWeight::new(&int4::SYMMETRIC, packed, int4).unwrap(),
        StoredWeight::new(
            &mxfp4::COMPRESSED_TENSORS,
            codes(&[ROWS, COLS / 2]),
            vec![bytes(Dtype::U8, 2, 127)],
        )
        .unwrap(),
        StoredWeight::new(
            &nvfp4::MODEL_OPTIMIZER,
            codes(&[ROWS, COLS / 2]),
            vec![bytes(Dtype::F8_E4M3, 4, 0x38), one()],
        )
        .unwrap(),
        StoredWeight::new(
            &nvfp4::COMPRESSED_TENSORS,
            codes(&[ROWS, COLS / 2]),
            vec![bytes(Dtype::F8_E4M3, 4, 0x38), one()],
        )
        .unwrap(),
    ]
}

/// All bands as one.
fn requantised(
    weight: &StoredWeight<'_>,
    values: &[f32],
    carry: Option<&[f32]>,
) -> StoredWeight<'static> {
    let encoding = weight.encoding();
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let companions = encoding.companions_for(largest, weight.companions()).unwrap();
    let mut values = values.to_vec();
    let new = NewRows { values: &mut values, stride: COLS, carry };
    let rows = Rows { companions: &companions, ..weight.all() };
    let piece = encoding.requantise(rows, new).unwrap();
    weight.requantised(companions.clone(), &[piece]).unwrap()
}

#[test]
fn what_was_decoded_stays() {
    for weight in weights() {
        for size in [1e-3, 1.0, 300.0] {
            let once = requantised(&weight, &numbers(1, ROWS * COLS, size), None);
            let twice = requantised(&once, &once.to_f32(), None);
            let name = weight.encoding().name();
            assert_eq!(twice.to_f32(), once.to_f32(), "{name}");
            let bytes = |w: &StoredWeight<'_>| {
                w.companions().iter().map(|c| c.bytes().to_vec()).collect::<Vec<_>>()
            };
            assert_eq!(bytes(&twice), bytes(&once), "{name}");
            let none = requantised(&once, &vec![0.0; ROWS * COLS], None);
            assert_eq!(none.count_zeros() as usize, ROWS * COLS, "{name}");
        }
    }
}

/// The square of what rounding changes, as a share of the weights'.
#[test]
fn scales_fit_the_values() {
    for weight in weights() {
        let bits = weight.encoding().requantising(weight.shape()).unwrap().bits;
        let most = if bits == 8 { 2e-3 } else { 2e-2 };
        for size in [0.05, 0.7, 300.0] {
            let values = numbers(2, ROWS * COLS, size);
            let new = requantised(&weight, &values, None).to_f32();
            let lost: f32 = new.iter().zip(&values).map(|(a, b)| (a - b).powi(2)).sum();
            let all: f32 = values.iter().map(|value| value.powi(2)).sum();
            let name = weight.encoding().name();
            assert!(lost < most * all, "{name} of {size}: {}", lost / all);
        }
    }
}

/// The Gram matrix of inputs that are alike, and the packed factor of its inverse.
fn gram_and_factor() -> (Vec<f64>, Vec<f32>) {
    let inputs: Vec<f32> = (0..200_u64)
        .flat_map(|token| {
            let common = numbers(1000 + token, 1, 3.0)[0];
            numbers(token, COLS, 1.0).into_iter().map(move |own| own + common)
        })
        .collect();
    let mut gram = vec![0.0; COLS * COLS];
    for row in inputs.chunks_exact(COLS) {
        for i in 0..COLS {
            for j in 0..COLS {
                gram[i * COLS + j] += f64::from(row[i]) * f64::from(row[j]);
            }
        }
    }
    // H = L Lᵀ from the last row to the first with L upper: then U = L⁻¹ has H⁻¹ = Uᵀ U.
    let mut lower = vec![0.0; COLS * COLS];
    for j in (0..COLS).rev() {
        for i in (0..=j).rev() {
            let behind: f64 =
                (j + 1..COLS).map(|k| lower[i * COLS + k] * lower[j * COLS + k]).sum();
            let left = gram[i * COLS + j] - behind;
            lower[i * COLS + j] = if i == j { left.sqrt() } else { left / lower[j * COLS + j] };
        }
    }
    let mut factor = Vec::new();
    for i in 0..COLS {
        let mut row = vec![0.0; COLS];
        for j in i..COLS {
            let sum: f64 = (i..j).map(|k| row[k] * lower[k * COLS + j]).sum();
            row[j] = (f64::from(u8::from(i == j)) - sum) / lower[j * COLS + j];
        }
        factor.extend(row[i..].iter().map(|&x| x as f32));
    }
    (gram, factor)
}

#[test]
fn carried_errors_are_made_up_for() {
    let (gram, factor) = gram_and_factor();
    let values = numbers(3, ROWS * COLS, 0.1);
    let missing = |new: &StoredWeight<'_>| -> f64 {
        let lost: Vec<f64> =
            new.to_f32().iter().zip(&values).map(|(a, b)| f64::from(a - b)).collect();
        let of_row = |row: &[f64]| -> f64 {
            let at = |i: usize, j: usize| row[i] * gram[i * COLS + j] * row[j];
            (0..COLS).map(|i| (0..COLS).map(|j| at(i, j)).sum::<f64>()).sum()
        };
        lost.chunks_exact(COLS).map(of_row).sum()
    };
    for weight in weights() {
        if weight.encoding().requantising(weight.shape()).unwrap().bits > 4 {
            continue;
        }
        let nearest = missing(&requantised(&weight, &values, None));
        let carried = missing(&requantised(&weight, &values, Some(&factor)));
        let name = weight.encoding().name();
        assert!(carried < 0.7 * nearest, "{name}: {carried} against {nearest}");
    }
}

#[test]
fn the_largest_of_a_tensor_may_grow() {
    for weight in weights() {
        let mut values = numbers(4, ROWS * COLS, 0.1);
        let once = requantised(&weight, &values, None);
        values[70] = 46.0;
        let new = requantised(&once, &values, None).to_f32();
        assert!((new[70] / 46.0 - 1.0).abs() < 0.08, "{}: {}", weight.encoding().name(), new[70]);
    }
}

#[test]
fn what_is_only_read_is_refused() {
    let encoding = &int4::ASYMMETRIC as &dyn moeprune_core::Encoding;
    assert_eq!(encoding.requantising(&[8, 64]), None);
}
