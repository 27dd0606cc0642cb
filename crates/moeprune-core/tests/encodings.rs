//! Encodings of quantised weights: values by hand, which tensors are refused, and how a module's
//! encoding is found.

use moeprune_core::{
    Dtype, Error, StoredWeight, TensorBytes,
    encoding::{ModuleTensors, QuantConfig, RowsMut, detect},
};
use serde_json::{Value, json};

/// Tensors of a module by their suffixes.
type Module = Vec<(&'static str, TensorBytes<'static>)>;

fn tensor(dtype: Dtype, shape: &[usize], bytes: impl Into<Vec<u8>>) -> TensorBytes<'static> {
    TensorBytes::new(dtype, shape, bytes.into()).expect("fits")
}

fn floats(dtype: Dtype, shape: &[usize], value: f32) -> TensorBytes<'static> {
    let values = vec![value; shape.iter().product()];
    TensorBytes::encode(dtype, shape, &values).expect("fits")
}

fn integers(shape: &[usize], values: &[u32]) -> TensorBytes<'static> {
    tensor(Dtype::I32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

fn headers(module: &Module) -> ModuleTensors<'_> {
    module.iter().map(|(suffix, tensor)| (*suffix, tensor.dtype(), tensor.shape())).collect()
}

fn open(module: &Module, config: &Value) -> Result<StoredWeight<'static>, Error> {
    let encoding = detect(&headers(module), &QuantConfig::from_json(config)?)?;
    let get = |suffix: &str| {
        let found = module.iter().find(|(name, _)| *name == suffix);
        found.map(|(_, tensor)| tensor.clone()).expect("detection saw it")
    };
    let companions = encoding.companions().iter().map(|c| get(c.suffix)).collect();
    let main = get(encoding.suffix());
    StoredWeight::new(encoding, main, companions)
}

/// Eight codes: 9, 7, 15, 0, 8, 11, 5, 13.
const WORD: u32 = 0xd5b8_0f79;
const EIGHT: [f32; 8] = [2.0, -2.0, 14.0, -16.0, 0.0, 6.0, -6.0, 10.0];

fn fp8(scale: &'static str, shape: &[usize], scales: TensorBytes<'static>) -> Module {
    let codes: Vec<u8> =
        [0x38, 0x7e, 0x01, 0xc4].into_iter().cycle().take(shape.iter().product()).collect();
    vec![(".weight", tensor(Dtype::F8_E4M3, shape, codes)), (scale, scales)]
}

fn int4() -> Module {
    vec![
        (".weight_packed", integers(&[1, 1], &[WORD])),
        (".weight_scale", floats(Dtype::BF16, &[1, 1], 2.0)),
        (".weight_shape", integers(&[2], &[1, 8])),
    ]
}

fn int4_asymmetric() -> Module {
    // 12 rows with zero points −8..3, as 0..11.
    let mut module = vec![
        (".weight_packed", integers(&[12, 1], &[WORD; 12])),
        (".weight_scale", floats(Dtype::F16, &[12, 1], 1.0)),
        (".weight_shape", tensor(Dtype::I64, &[2], [12u64, 8].map(u64::to_le_bytes).concat())),
    ];
    module.push((".weight_zero_point", integers(&[2, 1], &[0x7654_3210, 0x0000_ba98])));
    module
}

fn mxfp4() -> Module {
    let mut codes = vec![0; 16];
    codes[0] = 0x5a;
    vec![
        (".weight_packed", tensor(Dtype::U8, &[1, 16], codes)),
        (".weight_scale", tensor(Dtype::U8, &[1, 1], [121])),
    ]
}

fn gpt_oss() -> Module {
    let mut codes = vec![0; 2 * 3 * 16];
    codes[16] = 0x5a;
    vec![
        ("_blocks", tensor(Dtype::U8, &[2, 3, 1, 16], codes)),
        ("_scales", tensor(Dtype::U8, &[2, 3, 1], [127, 121, 127, 127, 127, 127])),
        ("_bias", floats(Dtype::BF16, &[2, 3], 0.0)),
    ]
}

fn nvfp4(packed: &'static str, name: &'static str, of_all: f32) -> Module {
    let mut codes = vec![0; 8];
    codes[0] = 0x5a;
    vec![
        (packed, tensor(Dtype::U8, &[1, 8], codes)),
        (".weight_scale", tensor(Dtype::F8_E4M3, &[1, 1], [0x48])),
        (name, floats(Dtype::F32, &[1], of_all)),
        (".input_scale", floats(Dtype::F32, &[], 1.0)),
    ]
}

fn gptq(zeros: u32) -> Module {
    vec![
        (".qweight", integers(&[1, 8], &[WORD; 8])),
        (".qzeros", integers(&[1, 1], &[zeros])),
        (".scales", floats(Dtype::F16, &[1, 8], 2.0)),
        (".g_idx", integers(&[8], &[0; 8])),
    ]
}

fn awq() -> Module {
    vec![
        // Outputs 9, 7, 15, 0, 8, 11, 5, 13 of one input.
        (".qweight", integers(&[1, 1], &[0xdb07_58f9])),
        (".qzeros", integers(&[1, 1], &[0x8888_8888])),
        (".scales", floats(Dtype::F16, &[1, 8], 2.0)),
    ]
}

#[test]
fn values_by_hand() {
    let check = |module: Module, config: Value, expected: &[f32]| {
        let weight = open(&module, &config).expect("fits");
        assert_eq!(weight.to_f32()[..expected.len()], *expected, "{weight:?}");
    };
    let half = floats(Dtype::F32, &[1, 1], 0.5);
    let block = json!({"weight_block_size": [4, 4]});
    let values = [0.5, 224.0, 2f32.powi(-10), -1.5];
    check(fp8(".weight_scale_inv", &[1, 4], half.clone()), block.clone(), &values);
    check(fp8(".scale", &[1, 4], half.clone()), block, &values);
    check(fp8(".weight_scale", &[1, 4], floats(Dtype::F32, &[], 0.5)), json!({}), &values);
    check(fp8(".weight_scale", &[2, 4], floats(Dtype::BF16, &[2, 1], 0.5)), json!({}), &values);
    check(int4(), json!({}), &EIGHT);
    check(mxfp4(), json!({}), &[-0.015625, 0.046875]);
    check(
        nvfp4(".weight", ".weight_scale_2", 2f32.powi(-11)),
        json!({}),
        &[-0.001953125, 0.005859375],
    );
    check(
        nvfp4(".weight_packed", ".weight_global_scale", 2048.0),
        json!({}),
        &[-0.001953125, 0.005859375],
    );
    check(gptq(0x7777_7777), json!({}), &EIGHT);
    check(gptq(0x8888_8888), json!({}), &EIGHT);
    check(awq(), json!({}), &EIGHT);
}

#[test]
fn rows_find_their_companions() {
    let values = |module: &Module| open(module, &json!({})).expect("fits").to_f32();
    let asymmetric = values(&int4_asymmetric());
    let first: Vec<f32> = asymmetric.chunks(8).map(|row| row[0]).collect();
    assert_eq!(first, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0]);
    assert_eq!(values(&gpt_oss())[32..34], [-0.015625, 0.046875]);
}

/// Blocks at the edge are cut: 192 rows have two scales, and row 127 the first.
#[test]
fn ragged_blocks() {
    let scales = [1.0, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    let module = fp8(".weight_scale_inv", &[192, 130], tensor(Dtype::F32, &[2, 2], scales));
    let weight = open(&module, &json!({"weight_block_size": [128, 128]})).expect("fits");
    let (values, first) =
        (weight.to_f32(), |row: usize, col: usize| (row * 130 + col).is_multiple_of(4));
    for (row, col, scale) in [(0, 0, 1.0), (126, 128, 2.0), (128, 0, 3.0), (190, 128, 4.0)] {
        assert!(first(row, col), "a code of 1.0");
        assert_eq!(values[row * 130 + col], scale, "row {row}, column {col}");
    }
    // Experts one after the other have scales one after the other.
    let scales: Vec<u8> = (1..=4).flat_map(|s| (s as f32).to_le_bytes()).collect();
    let module = fp8(".weight_scale_inv", &[2, 6, 4], tensor(Dtype::F32, &[2, 2, 1], scales));
    let weight = open(&module, &json!({"weight_block_size": [4, 4]})).expect("fits");
    let firsts: Vec<f32> = weight.to_f32().chunks(4).map(|row| row[0]).collect();
    assert_eq!(firsts, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 4.0, 4.0]);
}

#[test]
fn the_version_of_gptq() {
    let check = |zeros, config: Value, version: &str| {
        let weight = open(&gptq(zeros), &config).expect("fits");
        assert_eq!(weight.encoding().name(), version, "{zeros:#x} {config}");
    };
    let labelled = |label: &str| json!({"checkpoint_format": label});
    check(0x7777_7777, labelled("gptq"), "gptq (v1)");
    check(0x8888_8888, labelled("gptq"), "gptq (v2)");
    check(0x7777_7777, labelled("gptq_v2"), "gptq (v1)");
    check(0x7777_7778, labelled("gptq_v2"), "gptq (v2)");
    check(0x7777_7778, labelled("gptq"), "gptq (v1)");
    check(0x7777_7778, json!({}), "gptq (v1)");
    // Of asymmetric weights, such zero points are by chance.
    check(0x7777_7777, json!({"checkpoint_format": "gptq_v2", "sym": false}), "gptq (v2)");
}

/// A stored 15 means 16 in version 1, which no code is.
#[test]
fn a_weight_without_a_zero() {
    let weight = open(&gptq(0x7777_7f77), &json!({"sym": false})).expect("fits");
    assert_eq!(weight.to_f32()[16], -14.0);
    let all = weight.all();
    let mut main = all.main.to_vec();
    let (shape, companions) = (all.shape, all.companions);
    let mut rows = RowsMut { first: 0, count: 8, shape, main: &mut main, companions };
    let unzeroed = weight.encoding().zero_where(&mut rows, &[true; 64]);
    assert_eq!((unzeroed.count, unzeroed.first), (8, Some(16)));
    let after = StoredWeight::new(
        weight.encoding().clone(),
        tensor(Dtype::I32, &[1, 8], main),
        companions.to_vec(),
    );
    let zeros = after.expect("fits").to_f32();
    assert!((0..64).all(|at| (zeros[at] == 0.0) != (16..24).contains(&at)));
}

/// What [`check_refused`] does to a module.
enum Change {
    Remove(&'static str),
    Put(&'static str, TensorBytes<'static>),
}

use Change::{Put, Remove};

fn check_refused(mut module: Module, config: Value, change: Change, expected: &str) {
    let suffix = match &change {
        Remove(suffix) | Put(suffix, _) => *suffix,
    };
    module.retain(|(name, _)| *name != suffix);
    if let Put(suffix, tensor) = change {
        module.push((suffix, tensor));
    }
    let error = open(&module, &config).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}, expected {expected}");
}

#[test]
fn companions_that_are_missing() {
    let check =
        |module, suffix, expected| check_refused(module, json!({}), Remove(suffix), expected);
    let channel = || fp8(".weight_scale", &[2, 4], floats(Dtype::F32, &[2, 1], 1.0));
    check(
        channel(),
        ".weight_scale",
        "no companion `.weight_scale_inv`, `.weight_scale` or `.scale`",
    );
    check(int4(), ".weight_scale", "`.weight_scale` is missing");
    check(int4(), ".weight_shape", "`.weight_shape` is missing");
    check(mxfp4(), ".weight_scale", "`.weight_scale` is missing");
    check(gpt_oss(), "_scales", "`_scales` is missing");
    check(
        nvfp4(".weight", ".weight_scale_2", 1.0),
        ".weight_scale_2",
        "`.weight_scale_2` is missing",
    );
    let tensors = nvfp4(".weight_packed", ".weight_global_scale", 1.0);
    check(tensors, ".weight_global_scale", "`.weight_global_scale` is missing");
    check(gptq(0), ".qzeros", "`.qzeros` is missing");
    check(gptq(0), ".scales", "`.scales` is missing");
    check(awq(), ".qzeros", "`.qzeros` is missing");
}

#[test]
fn companions_that_are_too_many() {
    let check = |module, suffix, expected| {
        let extra = Put(suffix, floats(Dtype::F32, &[1], 1.0));
        check_refused(module, json!({}), extra, expected);
    };
    let channel = || fp8(".weight_scale", &[2, 4], floats(Dtype::F32, &[2, 1], 1.0));
    check(channel(), ".weight_scale_2", "`.weight_scale_2` is none of its tensors");
    check(channel(), ".weight_scale_inv", "two scales");
    check(int4(), ".weight_scale_2", "`.weight_scale_2` is none of its tensors");
    check(
        nvfp4(".weight", ".weight_scale_2", 1.0),
        ".weight_scale.other",
        "`.weight_scale.other` is none",
    );
    check(awq(), ".perm", "`.perm` is none of its tensors");
    check(
        vec![(".weight", floats(Dtype::BF16, &[1, 1], 1.0))],
        ".weight_scale",
        "`.weight_scale` is none",
    );
}

#[test]
fn companions_that_do_not_fit() {
    let check = |module, suffix, tensor, expected| {
        let config = json!({"weight_block_size": [128, 128]});
        check_refused(module, config, Put(suffix, tensor), expected);
    };
    let f32s = |shape: &[usize]| floats(Dtype::F32, shape, 1.0);
    let block = || fp8(".weight_scale_inv", &[192, 8], f32s(&[2, 1]));
    check(
        block(),
        ".weight_scale_inv",
        f32s(&[3, 1]),
        "[3, 1] are not those of blocks of [128, 128]",
    );
    check(
        block(),
        ".weight_scale_inv",
        tensor(Dtype::I8, &[2, 1], [1, 1]),
        "is I8, expected F32 or",
    );
    check(int4(), ".weight_scale", f32s(&[1, 3]), "does not cut the 8 inputs");
    check(int4(), ".weight_scale", f32s(&[2, 1]), "does not cut");
    check(int4(), ".weight_shape", integers(&[2], &[1, 9]), "four bits for each weight");
    check(int4(), ".weight_shape", integers(&[2], &[2, 8]), "four bits for each weight");
    check(int4(), ".weight_shape", integers(&[1], &[8]), "1 numbers, not 2");
    check(int4_asymmetric(), ".weight_zero_point", integers(&[1, 1], &[0]), "expected [2, 1]");
    check(mxfp4(), ".weight_scale", tensor(Dtype::U8, &[1, 2], [1, 1]), "expected [1, 1]");
    check(gpt_oss(), "_scales", tensor(Dtype::U8, &[6], [1; 6]), "expected [2, 3, 1]");
    let tensors = || nvfp4(".weight", ".weight_scale_2", 1.0);
    check(tensors(), ".weight_scale", tensor(Dtype::F8_E4M3, &[1, 2], [1; 2]), "expected [1, 1]");
    check(tensors(), ".weight_scale_2", f32s(&[2]), "expected one number");
    check(gptq(0), ".qzeros", integers(&[2, 1], &[0; 2]), "expected [1, 1]");
    check(gptq(0), ".g_idx", integers(&[7], &[0; 7]), "expected [8]");
    check(gptq(0), ".g_idx", integers(&[8], &[0, 0, 0, 1, 0, 0, 0, 0]), "input 3 is of group 1");
    check(awq(), ".qzeros", integers(&[2, 1], &[0; 2]), "expected [1, 1]");
    check(awq(), ".scales", floats(Dtype::F16, &[2, 8], 1.0), "[groups, 8]");
}

#[test]
fn scales_that_are_none() {
    let check = |module: Module, suffix, scales, expected: &str| {
        check_refused(module, json!({}), Put(suffix, scales), expected);
    };
    let channel = || fp8(".weight_scale", &[2, 4], floats(Dtype::F32, &[2, 1], 1.0));
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (0.0, "0")] {
        let shown = format!("scale 0 of its companion `.weight_scale` is {shown}");
        check(channel(), ".weight_scale", floats(Dtype::F32, &[2, 1], bad), &shown);
        check(int4(), ".weight_scale", floats(Dtype::BF16, &[1, 1], bad), &shown);
        let shown = shown.replace(".weight_scale", ".scales");
        check(gptq(0), ".scales", floats(Dtype::F16, &[1, 8], bad), &shown);
        check(awq(), ".scales", floats(Dtype::F16, &[1, 8], bad), &shown);
        let shown = shown.replace(".scales", ".weight_scale_2");
        let tensors = nvfp4(".weight", ".weight_scale_2", 1.0);
        check(tensors, ".weight_scale_2", floats(Dtype::F32, &[1], bad), &shown);
    }
    check(mxfp4(), ".weight_scale", tensor(Dtype::U8, &[1, 1], [255]), "is NaN");
    let tensors = nvfp4(".weight", ".weight_scale_2", 1.0);
    check(tensors.clone(), ".weight_scale", tensor(Dtype::F8_E4M3, &[1, 1], [0x7f]), "is NaN");
    check(tensors, ".weight_scale_2", floats(Dtype::F32, &[1], 1e38), "overflow");
    // Small scales of groups are rounded to zero by the quantiser.
    let mut tensors = nvfp4(".weight", ".weight_scale_2", 1.0);
    tensors[1].1 = tensor(Dtype::F8_E4M3, &[1, 1], [0]);
    assert_eq!(open(&tensors, &json!({})).expect("fits").count_zeros(), 16);
}

/// Under a scale of zero all codes may say zero; others are lost.
#[test]
fn scales_of_zero() {
    let check = |mut module: Module, main: TensorBytes<'static>, scale: &str, zeros: u64| {
        let found = module.iter_mut().find(|(name, _)| *name == scale).expect("is there");
        let shape = found.1.shape().to_vec();
        found.1 = floats(found.1.dtype(), &shape, 0.0);
        let lost = open(&module, &json!({})).expect_err("codes say more").to_string();
        assert!(lost.contains("is 0") && lost.contains("row 0, column"), "{lost}");
        module[0].1 = main;
        assert_eq!(open(&module, &json!({})).expect("says zero").count_zeros(), zeros);
    };
    let channel = fp8(".weight_scale", &[2, 4], floats(Dtype::F32, &[2, 1], 1.0));
    check(
        channel,
        tensor(Dtype::F8_E4M3, &[2, 4], [0, 0x80, 0, 0, 0, 0, 0, 0]),
        ".weight_scale",
        8,
    );
    check(int4(), integers(&[1, 1], &[0x8888_8888]), ".weight_scale", 8);
}

#[test]
fn what_the_config_must_say() {
    let block = || fp8(".weight_scale_inv", &[192, 8], floats(Dtype::F32, &[2, 1], 1.0));
    let none = Put(".bias", floats(Dtype::F32, &[192], 1.0));
    check_refused(block(), json!({}), none, "whose size the config must say");
}

#[test]
fn formats_that_are_not_decoded() {
    let check = |module: Module, config: Value, expected: &str| {
        let error = detect(&headers(&module), &QuantConfig::from_json(&config).expect("fits"));
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("whole experts can still be removed"), "{error}");
    };
    let bytes = |dtype| (".weight", tensor(dtype, &[2, 32], [0; 64]));
    let scales = |dtype| (".weight_scale", tensor(dtype, &[2, 1], [1, 1]));
    check(vec![bytes(Dtype::F8_E4M3), scales(Dtype::U8)], json!({}), "MXFP8");
    check(vec![bytes(Dtype::F8_E5M2), scales(Dtype::U8)], json!({}), "F8_E5M2");
    let quark = json!({"quant_method": "quark"});
    check(vec![bytes(Dtype::U8), scales(Dtype::U8)], quark, "Quark stores it (quant_method quark)");
    let eight = (".weight_scale", floats(Dtype::F32, &[2, 1], 1.0));
    check(vec![bytes(Dtype::I8), eight], json!({}), "W8A8");
    let pairs = (".scale", tensor(Dtype::F8_E8M0, &[2, 2], [1; 4]));
    check(vec![bytes(Dtype::I8), pairs], json!({}), "FP4 in pairs");
    check(int4(), json!({"config_groups": {"a": {"weights": {"num_bits": 2}}}}), "2 bits");
    let mut ordered = int4();
    ordered.push((".weight_g_idx", integers(&[8], &[0; 8])));
    check(ordered, json!({}), "weight_g_idx");
    let mut wide = gptq(0);
    wide[0].1 = integers(&[2, 8], &[0; 16]);
    check(wide, json!({"bits": 4}), "GPTQ of 8 bits");
    check(awq(), json!({"version": "GEMV"}), "another packing (gemv)");
    let mut gemv = awq();
    gemv[0].1 = integers(&[8, 2], &[0; 16]);
    check(gemv, json!({}), "another packing");
    check(vec![(".trellis", integers(&[1], &[0]))], json!({}), "EXL3");
    check(vec![(".svdquant_lora_a", integers(&[1], &[0]))], json!({}), "SVDQuant");
    check(vec![(".codes", integers(&[1], &[0]))], json!({}), "has the tensors `.codes` I32");
}
