//! Blocks of GGUF files against the suite, and against what candle decodes them to.

use std::borrow::Cow;

use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};
use moeprune_core::{
    Dtype, Error, GgmlType, StoredWeight, TensorBytes,
    encoding::{QuantConfig, detect, ggml, mxfp4},
};
use moeprune_tests::conformance::encoding::check_with;
use proptest::prelude::*;

/// ggml's number of a kind of blocks, and candle's name.
const KINDS: [(u32, GgmlDType); 11] = [
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (15, GgmlDType::Q8K),
];
const MXFP4: u32 = 39;

fn kind(id: u32) -> GgmlType {
    GgmlType::from_id(id).unwrap_or_else(|| panic!("type {id} is known"))
}

fn weight(id: u32, rows: usize, cols: usize, bytes: Vec<u8>) -> StoredWeight<'static> {
    let main = TensorBytes::new(Dtype::Ggml(kind(id)), [rows, cols], bytes).expect("fits");
    StoredWeight::alone(main).expect("is decoded")
}

#[test]
fn blocks_keep_the_contract_of_encodings() {
    for id in KINDS.map(|(id, _)| id).into_iter().chain([MXFP4]) {
        let (kind, encoding) = (kind(id), ggml::of(kind(id)).expect("is decoded"));
        check_with(&*encoding, [1, kind.block_elements()], |rows, cols, byte| {
            let size = rows * cols / kind.block_elements() * kind.block_bytes();
            Ok(weight(id, rows, cols, (0..size).map(|_| byte()).collect()))
        });
    }
}

fn decoded_by_candle(dtype: GgmlDType, shape: [usize; 2], bytes: &[u8]) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype).expect("fits");
    let tensor = QTensor::new(storage, (shape[0], shape[1])).expect("fits");
    let values = tensor.dequantize(&Device::Cpu).and_then(|values| values.flatten_all());
    values.and_then(|values| values.to_vec1()).expect("decodes")
}

proptest! {
    #[test]
    fn blocks_decode_as_in_candle(rows in 1_usize..4, blocks in 1_usize..4, seed in any::<u64>()) {
        for (id, dtype) in KINDS {
            let kind = kind(id);
            let (cols, size) = (blocks * kind.block_elements(), blocks * kind.block_bytes());
            let mut state = seed;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            let bytes: Vec<u8> = (0..rows * size).map(|_| byte()).collect();
            let expected = decoded_by_candle(dtype, [rows, cols], &bytes);
            let got = weight(id, rows, cols, bytes).to_f32();
            prop_assert_eq!(got.len(), expected.len());
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // Bits of a NaN say nothing.
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                prop_assert!(same, "{} at {}: {} and {}", kind, at, got, expected);
            }
        }
    }

    /// The same codes and exponents as in safetensors, where the halves of a byte are neighbours.
    #[test]
    fn mxfp4_is_that_of_safetensors(codes in prop::collection::vec(0_u8..16, 64), exponents in [0_u8..255, 0_u8..255]) {
        let mut blocks = Vec::new();
        for (codes, exponent) in codes.chunks_exact(32).zip(exponents) {
            blocks.push(exponent);
            blocks.extend((0..16).map(|at| codes[at] | codes[at + 16] << 4));
        }
        let packed: Vec<u8> = codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect();
        let main = TensorBytes::new(Dtype::U8, [1, 32], packed).expect("fits");
        let scales = TensorBytes::new(Dtype::U8, [1, 2], exponents.to_vec()).expect("fits");
        let stored = StoredWeight::new(&mxfp4::COMPRESSED_TENSORS, main, vec![scales]).expect("fits");
        let bits = |weight: &StoredWeight<'_>| {
            weight.to_f32().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(&weight(MXFP4, 1, 64, blocks)), bits(&stored));
    }
}

#[test]
fn other_kinds_are_not_decoded_and_none_is_zeroed() {
    for kind in GgmlType::all() {
        let shape = [2, kind.block_elements()];
        let module = [(".weight", Dtype::Ggml(kind), &shape[..])].into_iter().collect();
        let found = detect(&module, &QuantConfig::default());
        let bytes = vec![0; 2 * kind.block_bytes()];
        let main = TensorBytes::new(Dtype::Ggml(kind), shape, bytes).expect("fits");
        match found {
            Ok(encoding) => {
                assert_eq!(Some(encoding.name()), kind.name());
                let refused = encoding.zeroes().expect_err("is read only").to_string();
                assert!(refused.contains("zeroing weights is for safetensors"), "{refused}");
                assert_eq!(StoredWeight::alone(main).expect("is decoded").shape(), shape);
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(&format!("{kind} of GGUF are not decoded")), "{message}");
                assert!(matches!(StoredWeight::alone(main), Err(Error::NotDecoded(_))));
            }
        }
    }
}
