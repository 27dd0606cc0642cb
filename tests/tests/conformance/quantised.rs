//! Every built-in encoding of quantised weights against the suite.

use moeprune_core::{
    Dtype, Error, StoredWeight, TensorBytes,
    encoding::{
        GptqLabel, SharedEncoding, awq,
        fp8::{Fp8, Sharing},
        gptq::Gptq,
        int4, mxfp4, nvfp4,
    },
};
use moeprune_tests::conformance::encoding::check_with;

/// Where arbitrary bytes come from.
type Bytes<'a> = &'a mut dyn FnMut() -> u8;

/// A tensor of arbitrary bytes.
fn codes(dtype: Dtype, shape: [usize; 2], byte: Bytes<'_>) -> TensorBytes<'static> {
    let bytes = dtype.bytes_of(shape[0] * shape[1]).unwrap();
    let bytes: Vec<u8> = (0..bytes).map(|_| byte()).collect();
    TensorBytes::new(dtype, shape, bytes).expect("fits")
}

/// Scales that are numbers and not zero, some of them negative.
fn scales(dtype: Dtype, shape: [usize; 2], byte: Bytes<'_>) -> TensorBytes<'static> {
    let scale = |byte: u8| f32::from(byte as i8) / 64.0 + 1e-3;
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| scale(byte())).collect();
    TensorBytes::encode(dtype, shape, &values).expect("a plain type")
}

/// F8_E8M0 or, zero too, F8_E4M3: any but NaN.
fn short_scales(dtype: Dtype, shape: [usize; 2], byte: Bytes<'_>) -> TensorBytes<'static> {
    let number = |byte: u8| match (dtype, byte) {
        (Dtype::F8_E4M3, 0x7f | 0xff) => 0x30,
        (_, 0xff) => 0x80,
        _ => byte,
    };
    let bytes: Vec<u8> = (0..shape[0] * shape[1]).map(|_| number(byte())).collect();
    TensorBytes::new(dtype, shape, bytes).expect("fits")
}

fn integers(shape: &[usize], values: impl Iterator<Item = usize>) -> TensorBytes<'static> {
    let bytes: Vec<u8> = values.flat_map(|value| (value as u32).to_le_bytes()).collect();
    TensorBytes::new(Dtype::I32, shape, bytes).expect("fits")
}

#[test]
fn fp8() {
    let check = |sharing, dtype, shape: fn(usize, usize) -> [usize; 2]| {
        let encoding = SharedEncoding::new(Fp8::new(sharing, ".weight_scale").expect("a scale"));
        check_with(&*encoding, [1, 8], |rows, cols, byte| {
            let main = codes(Dtype::F8_E4M3, [rows, cols], byte);
            let of = shape(rows, cols);
            let scale = match dtype {
                Dtype::F8_E8M0 => short_scales(dtype, of, byte),
                _ => scales(dtype, of, byte),
            };
            StoredWeight::new(encoding.clone(), main, vec![scale])
        });
    };
    check(Sharing::Tensor, Dtype::F32, |_, _| [1, 1]);
    check(Sharing::Channel, Dtype::BF16, |rows, _| [rows, 1]);
    let blocks = |rows: usize, cols: usize| [rows.div_ceil(3), cols.div_ceil(12)];
    check(Sharing::Block([3, 12]), Dtype::F32, blocks);
    check(Sharing::Block([3, 12]), Dtype::F8_E8M0, blocks);
}

#[test]
fn int4() {
    let weight = |rows: usize, cols: usize, byte: Bytes<'_>| {
        let main = codes(Dtype::I32, [rows, cols / 8], byte);
        let companions = vec![
            scales(Dtype::BF16, [rows, cols / 8], byte),
            integers(&[2], [rows, cols].into_iter()),
        ];
        (main, companions)
    };
    check_with(&int4::SYMMETRIC, [1, 8], |rows, cols, byte| {
        let (main, companions) = weight(rows, cols, byte);
        StoredWeight::new(&int4::SYMMETRIC, main, companions)
    });
    check_with(&int4::ASYMMETRIC, [1, 8], |rows, cols, byte| {
        let (main, mut companions) = weight(rows, cols, byte);
        companions.push(codes(Dtype::I32, [rows.div_ceil(8), cols / 8], byte));
        StoredWeight::new(&int4::ASYMMETRIC, main, companions)
    });
    // Groups that are no whole words, and rows that do not fill their last word.
    check_with(&int4::SYMMETRIC, [1, 24], |rows, cols, byte| {
        let main = codes(Dtype::I32, [rows, cols / 8], byte);
        let shape = integers(&[2], [rows, cols].into_iter());
        let groups = scales(Dtype::F32, [rows, cols / 12], byte);
        StoredWeight::new(&int4::SYMMETRIC, main, vec![groups, shape])
    });
}

#[test]
fn mxfp4() {
    check_with(&mxfp4::COMPRESSED_TENSORS, [1, 32], |rows, cols, byte| {
        let main = codes(Dtype::U8, [rows, cols / 2], byte);
        let exponents = short_scales(Dtype::U8, [rows, cols / 32], byte);
        StoredWeight::new(&mxfp4::COMPRESSED_TENSORS, main, vec![exponents])
    });
    check_with(&mxfp4::GPT_OSS, [1, 32], |rows, cols, byte| {
        let main = codes(Dtype::U8, [rows, cols / 2], byte).into_bytes();
        let main = TensorBytes::new(Dtype::U8, [rows, cols / 32, 16], main)?;
        let exponents = short_scales(Dtype::U8, [rows, cols / 32], byte);
        StoredWeight::new(&mxfp4::GPT_OSS, main, vec![exponents])
    });
}

#[test]
fn nvfp4() {
    for encoding in [&nvfp4::MODEL_OPTIMIZER, &nvfp4::COMPRESSED_TENSORS] {
        check_with(encoding, [1, 16], |rows, cols, byte| {
            let mut main = codes(Dtype::U8, [rows, cols / 2], byte).into_bytes();
            let mut groups = short_scales(Dtype::F8_E4M3, [rows, cols / 16], byte).into_bytes();
            // The largest weight is what the scale for all was made for.
            (main[0], groups[0]) = (main[0] | 0x7, 0x7e);
            let main = TensorBytes::new(Dtype::U8, [rows, cols / 2], main)?;
            let groups = TensorBytes::new(Dtype::F8_E4M3, [rows, cols / 16], groups)?;
            let of_all = 1e-3 + f32::from(byte()) / 64.0;
            let of_all = TensorBytes::encode(Dtype::F32, [1, 1], &[of_all])?;
            StoredWeight::new(encoding, main, vec![groups, of_all])
        });
    }
}

#[test]
fn gptq() {
    let check = |version, group_index: bool| {
        let encoding = SharedEncoding::new(Gptq::new(version, group_index));
        check_with(&*encoding, [8, 8], |rows, cols, byte| {
            let groups = cols / 8;
            let main = codes(Dtype::I32, [cols / 8, rows], byte);
            let mut companions = vec![
                codes(Dtype::I32, [groups, rows / 8], byte),
                scales(Dtype::F16, [groups, rows], byte),
            ];
            if group_index {
                let order = (0..cols).map(|_| usize::from(byte()) % groups);
                companions.push(integers(&[cols], order));
            }
            StoredWeight::new(encoding.clone(), main, companions)
        });
    };
    check(GptqLabel::V1, false);
    check(GptqLabel::V1, true);
    check(GptqLabel::V2, true);
}

#[test]
fn awq() {
    check_with(&awq::GEMM, [8, 8], |rows, cols, byte| -> Result<_, Error> {
        let main = codes(Dtype::I32, [cols, rows / 8], byte);
        let zeros = codes(Dtype::I32, [cols / 4, rows / 8], byte);
        let groups = scales(Dtype::F16, [cols / 4, rows], byte);
        StoredWeight::new(&awq::GEMM, main, vec![zeros, groups])
    });
}
