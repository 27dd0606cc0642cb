//! In which form the tensors of a module hold its weight, decoded or not.

use moeprune_core::{
    Dtype::{self, BF16, F8_E4M3, F8_E8M0, F16, F32, I8, I32, I64, U8},
    encoding::{Misfit, ModuleTensors, QuantConfig, StoredForm, codes_of, form_of, shape_of},
};

type Tensor = (&'static str, Dtype, &'static [usize]);

fn form(tensors: &[Tensor], expected: &[usize]) -> Result<StoredForm, Misfit> {
    let module = ModuleTensors::from_iter(tensors.iter().copied());
    form_of(&module, codes_of(&module)?, expected, &QuantConfig::default())
}

#[test]
fn forms_and_shapes() {
    let check = |tensors: &[Tensor], shape: [usize; 2], expected: &str| {
        assert_eq!(form(tensors, &shape).map(|form| form.to_string()).as_deref(), Ok(expected));
        let module = ModuleTensors::from_iter(tensors.iter().copied());
        let codes = codes_of(&module).expect("has codes");
        let undecoded = ["unknown", "INT8", "EXL3", "GEMV", "Quark"];
        if !undecoded.iter().any(|name| expected.contains(name)) {
            assert_eq!(shape_of(&module, codes), shape, "{expected}");
        }
    };
    let weight: Tensor = (".weight", F8_E4M3, &[160, 144]);
    check(&[weight, (".weight_scale_inv", F32, &[2, 2])], [160, 144], "FP8 in blocks");
    check(&[weight, (".weight_scale_inv", F8_E8M0, &[5, 5])], [160, 144], "FP8 in blocks");
    check(&[weight, (".scale", F8_E8M0, &[2, 2])], [160, 144], "FP8 in blocks");
    check(&[weight, (".weight_scale", BF16, &[160, 1])], [160, 144], "FP8 per channel");
    let static_scale: Tensor = (".input_scale", F32, &[]);
    check(&[weight, (".weight_scale", F32, &[]), static_scale], [160, 144], "FP8 per tensor");
    check(&[weight, (".weight_scale", U8, &[160, 5])], [160, 144], "MXFP8");
    let packed: Tensor = (".weight_packed", I32, &[36, 8]);
    let scale: Tensor = (".weight_scale", BF16, &[36, 2]);
    let zeros: Tensor = (".weight_zero_point", I32, &[5, 2]);
    check(&[packed, scale, (".weight_shape", I64, &[2])], [36, 64], "INT4 packed");
    check(&[packed, scale, zeros], [36, 64], "INT4 packed");
    check(&[packed, scale], [36, 32], "INT8 packed");
    let three = "an unknown form (weight_packed I32, weight_scale BF16)";
    check(&[packed, scale], [36, 80], three);
    let bytes: Tensor = (".weight_packed", U8, &[32, 32]);
    check(&[bytes, (".weight_scale", U8, &[32, 2])], [32, 64], "MXFP4");
    let global: Tensor = (".weight_global_scale", F32, &[1]);
    check(&[bytes, (".weight_scale", F8_E4M3, &[32, 4]), global], [32, 64], "NVFP4");
    let two: Tensor = (".weight_scale_2", F32, &[]);
    let weight: Tensor = (".weight", U8, &[32, 32]);
    check(&[weight, (".weight_scale", F8_E4M3, &[32, 4]), two], [32, 64], "NVFP4");
    let words: Tensor = (".qweight", I32, &[8, 32]);
    let (scales, zeros): (Tensor, Tensor) = ((".scales", F16, &[2, 32]), (".qzeros", I32, &[2, 4]));
    check(&[words, scales, zeros, (".g_idx", I32, &[64])], [32, 64], "GPTQ INT4");
    let words: Tensor = (".qweight", I32, &[64, 4]);
    check(&[words, scales, zeros], [32, 64], "AWQ INT4");
    let marlin: Tensor = (".qweight", I32, &[4, 64]);
    let other: Tensor = (".some_scale", F32, &[1]);
    let unknown = "an unknown form (some_scale F32, weight F8_E4M3)";
    check(&[other, (".weight", F8_E4M3, &[32, 64])], [32, 64], unknown);
    check(&[marlin, scales], [32, 64], "an unknown form (qweight I32, scales F16)");
    let plain: Tensor = (".weight", BF16, &[32, 64]);
    check(&[plain, (".k_scale", F32, &[])], [32, 64], "BF16");
    check(&[plain, scale], [32, 64], "an unknown form (weight BF16, weight_scale BF16)");
    check(&[(".weight", I8, &[32, 64]), (".weight_scale", BF16, &[32, 1])], [32, 64], "INT8");
    check(&[(".suh", F16, &[32]), (".trellis", I32, &[2, 4, 16])], [32, 64], "EXL3");
    let gemv: Tensor = (".qweight", I32, &[32, 8]);
    check(&[gemv, (".scales", F16, &[32, 8]), (".qzeros", I32, &[32, 1])], [32, 64], "AWQ GEMV");
    check(
        &[(".weight", U8, &[32, 32]), (".weight_scale", U8, &[32, 2])],
        [32, 64],
        "MXFP4 as Quark stores it",
    );
}

#[test]
fn what_is_missing_or_does_not_fit() {
    let check = |tensors: &[Tensor], suffix: &str, reason: &str| {
        let misfit = form(tensors, &[32, 64]).expect_err("does not fit");
        assert_eq!(misfit.suffix, suffix);
        assert!(misfit.reason.contains(reason), "{}", misfit.reason);
    };
    let weight: Tensor = (".weight", F8_E4M3, &[32, 64]);
    let blocks: Tensor = (".weight_scale_inv", F32, &[1, 1]);
    check(&[weight], ".weight_scale_inv", "is missing beside `weight`");
    check(&[blocks], ".weight", "is missing; there is only `weight_scale_inv`");
    check(&[weight, blocks, (".weight_scale", F32, &[])], ".weight_scale", "a second scale");
    check(&[weight, (".weight_scale", F32, &[33, 1])], ".weight_scale", "F32 [33, 1]");
    check(&[weight, (".weight_scale", F32, &[1, 1, 1])], ".weight_scale", "no blocks");
    check(&[(".weight", F8_E4M3, &[32, 63]), blocks], ".weight", "config.json asks for [32, 64]");
    let packed: Tensor = (".weight_packed", I32, &[32, 8]);
    check(&[packed], ".weight_scale", "is missing");
    check(&[packed, (".weight_scale", BF16, &[31, 2])], ".weight_scale", "[32, groups]");
    let scale: Tensor = (".weight_scale", BF16, &[32, 2]);
    let zeros: Tensor = (".weight_zero_point", I32, &[32, 2]);
    check(&[packed, scale, zeros], ".weight_zero_point", "asks for [4, 2]");
    let bytes: Tensor = (".weight_packed", U8, &[32, 32]);
    check(&[bytes], ".weight_scale", "is missing");
    let nv: Tensor = (".weight_scale", F8_E4M3, &[32, 4]);
    check(&[bytes, nv], ".weight_global_scale", "is missing");
    check(&[(".weight", U8, &[32, 32]), nv], ".weight_scale_2", "is missing");
    let words: Tensor = (".qweight", I32, &[8, 32]);
    check(&[words], ".scales", "is missing");
    check(&[words, (".scales", F16, &[2, 32])], ".qzeros", "is missing");
    let three: Tensor = (".qzeros", I32, &[3, 4]);
    check(&[words, (".scales", F16, &[2, 32]), three], ".qzeros", "ask for [2, 4]");
    check(&[weight, (".weight_scale", F32, &[31, 1])], ".weight_scale", "no blocks");
}
