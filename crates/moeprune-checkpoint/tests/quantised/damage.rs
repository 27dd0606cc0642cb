//! Models whose tensors do not fit together, and others that are unusual.

use moeprune_checkpoint::verify;
use moeprune_core::{LinearId, TensorId};
use safetensors::Dtype;

use crate::fixture::{Kept, Model, Tensors, cut};

/// What is said of a model after a change.
#[track_caller]
fn check(name: &str, change: impl Fn(&mut Tensors), expected: &[&str]) {
    let model = Model::copy_of(name);
    model.edit_tensors(change);
    let message = model.open().expect_err("is refused").to_string();
    expected.iter().for_each(|part| assert!(message.contains(part), "`{part}`: {message}"));
}

const FP8: &str = "fp8_block_e8m0_qwen3_moe";
const EXPERT: &str = "model.layers.1.mlp.experts.4.down_proj";

fn name(suffix: &str) -> String {
    format!("{EXPERT}.{suffix}")
}

#[test]
fn companions_that_are_missing() {
    let without = |model: &str, suffix: &str, expected: &str| {
        let gone = name(suffix);
        check(model, |tensors| assert!(tensors.remove(&gone).is_some()), &[&gone, expected]);
    };
    without(FP8, "weight_scale_inv", "is missing beside `weight`");
    without(FP8, "weight", "is missing; there is only `weight_scale_inv`");
    without("int4_pack_asym_qwen3_moe", "weight_scale", "is missing beside `weight_packed`");
    without("int4_pack_asym_qwen3_moe", "weight_zero_point", "is missing; 5 of 6");
    without("nvfp4_modelopt_qwen3_moe", "weight_scale_2", "is missing beside `weight`");
    without("nvfp4_modelopt_qwen3_moe", "input_scale", "is missing; 5 of 6 experts");
    without("nvfp4_ct_qwen3_moe", "weight_global_scale", "is missing");
    without("gptq_act_qwen3_moe", "g_idx", "is missing; 5 of 6 experts");
    without("gptq_act_qwen3_moe", "scales", "is missing");
    without("awq_qwen3_moe", "qzeros", "is missing");
}

#[test]
fn companions_that_are_too_many_or_misshapen() {
    let with = |model: &str, suffix: &str, shape: &[usize], expected: &str| {
        let added = name(suffix);
        let elements = shape.iter().product::<usize>();
        let tensor = (Dtype::F32, shape.to_vec(), vec![0; 4 * elements]);
        let insert = |tensors: &mut Tensors| drop(tensors.insert(added.clone(), tensor.clone()));
        check(model, insert, &[&added, expected]);
    };
    with(FP8, "anything", &[1], "only 1 of 6 experts");
    with(FP8, "weight_scale", &[1], "a second scale");
    with(FP8, "weight_scale_inv", &[65, 2], "of a weight 64 x 48");
    with("nvfp4_ct_qwen3_moe", "weight_global_scale", &[2], "a single number");
    with("gptq_act_qwen3_moe", "scales", &[2, 63], "[groups, 64] is expected");
    with("awq_qwen3_moe", "qzeros", &[3, 8], "ask for");
}

#[test]
fn routers_are_not_packed() {
    let router = "model.layers.1.mlp.gate";
    let with = |codes: (&str, Dtype, &[usize]), beside: &[(&str, Dtype, &[usize])]| {
        let packed = |tensors: &mut Tensors| {
            tensors.remove(&format!("{router}.weight")).expect("is there");
            for &(suffix, dtype, shape) in [codes].iter().chain(beside) {
                let bytes = dtype.bitsize() / 8 * shape.iter().product::<usize>();
                let tensor = (dtype, shape.to_vec(), vec![0; bytes]);
                tensors.insert(format!("{router}.{suffix}"), tensor);
            }
        };
        let main = format!("`{router}.{}`", codes.0);
        check(FP8, packed, &[&main, "quantised router, whose rows cannot be cut", "expected"]);
    };
    let fp8 = ("weight", Dtype::F8_E4M3, &[6, 64][..]);
    with(fp8, &[("weight_scale_inv", Dtype::F32, &[1, 2])]);
    with(fp8, &[("weight_scale", Dtype::F32, &[])]);
    with(fp8, &[("weight_scale", Dtype::F32, &[6, 1])]);
    with(("weight", Dtype::I8, &[6, 64]), &[("weight_scale", Dtype::F32, &[6, 1])]);
    let scale = ("weight_scale", Dtype::BF16, &[6, 2][..]);
    with(("weight_packed", Dtype::I32, &[6, 8]), &[scale, ("weight_shape", Dtype::I64, &[2])]);
    let (scales, zeros) =
        (("scales", Dtype::F16, &[2, 6][..]), ("qzeros", Dtype::I32, &[2, 1][..]));
    with(("qweight", Dtype::I32, &[8, 6]), &[scales, zeros, ("g_idx", Dtype::I32, &[64])]);
}

/// What is said of a model whose expert has a tensor of another shape.
#[test]
fn tensors_of_one_expert_that_are_misshapen() {
    let with = |model: &str, suffix: &str, shape: &[usize], expected: &[&str]| {
        let changed = name(suffix);
        let change = |tensors: &mut Tensors| {
            let tensor = tensors.get_mut(&changed).expect("is there");
            tensor.1 = shape.to_vec();
            tensor.2 = vec![0; tensor.0.bitsize() / 8 * shape.iter().product::<usize>()];
        };
        check(model, change, &[&[changed.as_str()], expected].concat());
    };
    with(
        FP8,
        "weight_scale_inv",
        &[1, 1],
        &["is F8_E8M0 [1, 1]", "[2, 2] is expected", "[32, 32]"],
    );
    with(FP8, "weight", &[64, 47], &["F8_E4M3 [64, 47]", "asks for [64, 48]"]);
    with(
        "gptq_act_qwen3_moe",
        "qweight",
        &[3, 64],
        &["is I32 [3, 64]", "codes of 4 bits are expected"],
    );
    with("gptq_act_qwen3_moe", "qweight", &[4, 63], &["is I32 [4, 63]", "expected [4, 64]"]);
    with("awq_qwen3_moe", "qweight", &[31, 8], &["is I32 [31, 8]", "expected [32, 8]"]);
    with("int4_pack_asym_qwen3_moe", "weight_packed", &[64, 5], &["[64, 5]", "expected [64, 4]"]);
    with("gptq_act_qwen3_moe", "scales", &[3, 64], &["is F16 [3, 64]", "[1, 64]"]);
    with("awq_qwen3_moe", "scales", &[2, 64], &["is F16 [2, 64]", "[1, 64]"]);
}

#[test]
fn blocks_of_another_size_than_the_config_says() {
    let with = |block: serde_json::Value, expected: &[&str]| {
        let model = Model::copy_of(FP8);
        model.edit_config(|config| {
            config["quantization_config"]["weight_block_size"] = block.clone()
        });
        let message = model.open().expect_err("is refused").to_string();
        let all = ["experts.", ".weight_scale_inv", "is expected"];
        for part in all.iter().chain(expected) {
            assert!(message.contains(part), "`{part}`: {message}");
        }
    };
    with(serde_json::json!([16, 16]), &["[16, 16]", "correct the size"]);
    with(serde_json::json!([144, 144]), &["[1, 1] is expected"]);
}

/// What a form is said to lack that is decoded otherwise, where the model can be cut all the same.
#[test]
fn what_is_not_said_is_named() {
    let check = |name: &str, change: &dyn Fn(&Model), expected: &str| {
        let model = Model::copy_of(name);
        change(&model);
        let source = model.open().expect("can be cut");
        let undecoded = source.spec().undecoded.clone().expect("is not decoded");
        let said = format!("{} stored as {undecoded}", undecoded.what());
        assert!(said.contains(expected), "{said}");
    };
    let sizeless = |model: &Model| {
        model.edit_config(|config| {
            config["quantization_config"]
                .as_object_mut()
                .expect("is one")
                .remove("weight_block_size");
        });
    };
    check(FP8, &sizeless, "whose size the config must say (`weight_block_size`");
    let shapeless = |model: &Model| {
        model.edit_tensors(|tensors| tensors.retain(|name, _| !name.ends_with("weight_shape")));
    };
    check("int4_pack_asym_qwen3_moe", &shapeless, "INT4 packed, but its companion `.weight_shape`");
    let other = |model: &Model| {
        model.edit_tensors(|tensors| {
            let tensor = tensors.get_mut("model.layers.1.mlp.experts.1.up_proj.weight");
            tensor.expect("is there").0 = Dtype::F8_E5M2;
        });
    };
    check(
        FP8,
        &other,
        "experts of layer 1 (first expert.1.up) are stored as F8_E5M2, which is not",
    );
    let gemv = |model: &Model| {
        model.edit_config(|config| config["quantization_config"]["version"] = "gemv".into());
    };
    check("awq_qwen3_moe", &gemv, "AWQ GEMV, which is not decoded yet");
}

/// Adds something to all experts of a model.
fn to_all_experts(tensors: &mut Tensors, suffix: &str, count: usize) {
    for layer in 0..2 {
        for expert in 0..count {
            let name = format!("model.layers.{layer}.mlp.experts.{expert}.{suffix}");
            let bytes = vec![layer as u8, expert as u8, 7, 7];
            tensors.insert(name, (Dtype::F32, vec![1], bytes));
        }
    }
}

#[test]
fn what_is_not_known_travels() {
    let check = |suffix: &str, is_known: bool| {
        let model = Model::copy_of("nvfp4_ct_qwen3_moe");
        model.edit_tensors(|tensors| to_all_experts(tensors, suffix, 6));
        let source = model.open().expect("opens");
        let kept = Kept::from([(0, vec![0, 2, 5]), (1, vec![1, 3, 4])]);
        let out = model.root.path().join("out");
        cut(&source, &kept, &out);
        let pruned = moeprune_checkpoint::Checkpoint::open(&out).expect("opens");
        for (layer, kept) in kept {
            for (new, old) in kept.into_iter().enumerate() {
                let name = format!("model.layers.{layer}.mlp.experts.{new}.{suffix}");
                let got = pruned.tensor_by_name(&name).expect("is there");
                assert_eq!(got.bytes(), [layer as u8, old as u8, 7, 7]);
            }
        }
        let up = TensorId::linear(0, "expert.0.up".parse::<LinearId>().expect("is one"));
        let form = source.stored_part(up).expect("is several").form.to_string();
        assert_eq!(form == "NVFP4", is_known, "{form}");
        let report = verify(&out, &source, None).expect("reads");
        assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    };
    check("up_proj.weight_scale.nvfp4_csf_fixed", true);
    check("up_proj.anything", true);
    check("anything", true);
}

#[test]
fn forms_that_are_not_decoded_are_cut() {
    let check = |from: &str, to: &str, dtype: Dtype, expected: &str| {
        let model = Model::copy_of(FP8);
        model.edit_tensors(|tensors| {
            for (name, (dtype_of, shape, data)) in std::mem::take(tensors) {
                let renamed = name.replace(from, to);
                let dtype_of = if name.ends_with(from) { dtype } else { dtype_of };
                tensors.insert(renamed, (dtype_of, shape, data));
            }
        });
        model.edit_config(|config| config["quantization_config"]["quant_method"] = "quark".into());
        let source = model.open().expect("opens");
        let undecoded = source.spec().undecoded.clone().expect("is not decoded");
        assert!(undecoded.form.contains(expected), "{undecoded}");
        let out = model.root.path().join("out");
        cut(&source, &Kept::from([(0, vec![0, 2, 5]), (1, vec![1, 3, 4])]), &out);
        let report = verify(&out, &source, None).expect("reads");
        assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    };
    check(".weight_scale_inv", ".some_scale", Dtype::U8, "");
    check("_proj.weight_scale_inv", "_proj.weight_scale", Dtype::U8, "an unknown form");
}

#[test]
fn some_experts_in_numbers_and_some_in_codes() {
    let model = Model::copy_of(FP8);
    model.edit_tensors(|tensors| {
        let codes = name("weight");
        let (_, shape, data) = tensors.remove(&codes).expect("is there");
        let numbers = data.iter().flat_map(|code| [0, code & 0x3f]).collect();
        tensors.insert(codes, (Dtype::BF16, shape, numbers));
        tensors.remove(&name("weight_scale_inv")).expect("is there");
    });
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    cut(&source, &Kept::from([(0, vec![0, 1, 2, 3]), (1, vec![0, 2, 4, 5])]), &out);
    let report = verify(&out, &source, None).expect("reads");
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    let pruned = moeprune_checkpoint::Checkpoint::open(&out).expect("opens");
    let plain = "model.layers.1.mlp.experts.2.down_proj";
    let got = pruned.tensor_by_name(&format!("{plain}.weight")).expect("is there");
    assert_eq!(got.dtype(), moeprune_core::Dtype::BF16);
    assert!(pruned.tensor_by_name(&format!("{plain}.weight_scale_inv")).is_err());
}

#[test]
fn patterns_that_cannot_be_read_are_named() {
    let model = Model::copy_of("fp8_channel_glm4_moe");
    model.edit_config(|config| {
        config["quantization_config"]["ignore"] = serde_json::json!(["re:experts.(1"]);
    });
    let source = model.open().expect("opens");
    let message = source.config_with_experts(&[0, 5, 5]).expect_err("is refused").to_string();
    assert!(message.contains("config.json") && message.contains("`re:experts.(1`"), "{message}");
}

/// A model of numbers whose experts lie in one tensor per layer, in codes with scales beside.
#[test]
fn all_experts_of_a_layer_in_codes() {
    let model = Model::copy_of("../parity/qwen3_moe_fused");
    model.edit_tensors(|tensors| {
        for (name, (dtype, shape, data)) in std::mem::take(tensors) {
            if !name.contains("mlp.experts.") {
                tensors.insert(name, (dtype, shape, data));
                continue;
            }
            let scale = (0..shape[0]).flat_map(|expert| [expert as u8; 4]).collect();
            tensors.insert(format!("{name}_scale_inv"), (Dtype::F32, vec![shape[0]], scale));
            let codes = data.chunks(2).map(|pair| pair[1]).collect();
            tensors.insert(name, (Dtype::F8_E4M3, shape, codes));
        }
    });
    let source = model.open().expect("opens");
    assert!(source.spec().has_opaque_experts());
    let layers: Vec<usize> =
        (0..source.spec().layers.len()).filter(|l| source.spec().moe_of(*l).is_some()).collect();
    let kept: Kept = layers.iter().map(|layer| (*layer, vec![1, 2, 5, 9])).collect();
    let out = model.root.path().join("out");
    cut(&source, &kept, &out);
    let pruned = moeprune_checkpoint::Checkpoint::open(&out).expect("opens");
    for layer in layers {
        let name = format!("model.layers.{layer}.mlp.experts.down_proj_scale_inv");
        let got = pruned.tensor_by_name(&name).expect("is there");
        assert_eq!(got.bytes(), [[1; 4], [2; 4], [5; 4], [9; 4]].concat());
    }
    let report = verify(&out, &source, None).expect("reads");
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}
