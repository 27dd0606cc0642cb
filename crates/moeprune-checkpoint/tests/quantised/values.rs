//! Scales that are no numbers, and configs that contradict the tensors.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{LinearId, MlpProjection, TensorId, TensorSource as _};
use serde_json::json;

use crate::fixture::{Model, Tensors};

const BLOCKS: &str = "fp8_block_deepseek_v3";

fn down() -> TensorId {
    TensorId::linear(1, LinearId::Expert(4, MlpProjection::Down))
}

fn said(source: &Checkpoint) -> String {
    source.weight(down()).expect_err("is refused").to_string()
}

#[test]
fn scales_that_are_no_numbers_are_named() {
    let check = |model: &str, suffix: &str, bytes: &[u8], expected: &str| {
        let tensor = format!("model.layers.1.mlp.experts.4.down_proj.{suffix}");
        let model = Model::copy_of(model);
        model.edit_tensors(|tensors: &mut Tensors| {
            let (_, _, data) = tensors.get_mut(&tensor).expect("is there");
            data[..bytes.len()].copy_from_slice(bytes);
        });
        let message = said(&model.open().expect("opens"));
        for part in ["model.layers.1.mlp.experts.4.down_proj", suffix, expected] {
            assert!(message.contains(part), "`{part}`: {message}");
        }
    };
    let scales = "weight_scale_inv";
    check(BLOCKS, scales, &f32::NAN.to_le_bytes(), "is NaN");
    check(BLOCKS, scales, &f32::INFINITY.to_le_bytes(), "is inf");
    check(BLOCKS, scales, &0.0_f32.to_le_bytes(), "is 0");
    check("fp8_block_e8m0_qwen3_moe", scales, &[0xff], "is NaN");
    check("fp8_channel_glm4_moe", "weight_scale", &[0xc0, 0x7f], "is NaN");
    check("gptq_act_qwen3_moe", "scales", &[0x00, 0x7c], "is inf");
}

#[test]
fn values_win_over_labels_and_lists() {
    let check = |model: &str, key: &str, value: serde_json::Value| {
        let model_as_is = Model::copy_of(model).open().expect("opens");
        let plain = model_as_is.weight(down()).map(|weight| weight.to_f32());
        let other = Model::copy_of(model);
        other.edit_config(|config| config["quantization_config"][key] = value.clone());
        let source = other.open().expect("opens");
        let got = source.weight(down()).map(|weight| weight.to_f32());
        assert_eq!(got.expect("reads"), plain.expect("reads"), "{model} {key}");
    };
    check("gptq_mixtral", "checkpoint_format", json!("gptq_v2"));
    check(BLOCKS, "modules_to_not_convert", json!(["no.such.module"]));
    check("fp8_channel_glm4_moe", "ignore", json!(["re:.*no_such.*", "no.such.module"]));
}

/// A model whose attention alone cannot be decoded: its experts can be averaged all the same.
#[test]
fn undecoded_attention_leaves_experts_as_they_are() {
    let model = Model::copy_of("fp8_channel_glm4_moe");
    model.edit_tensors(|tensors: &mut Tensors| {
        let name = "model.layers.1.self_attn.o_proj.weight";
        let (_, shape, _) = tensors.remove(name).expect("is there");
        let codes = vec![0; shape.iter().product()];
        tensors.insert(name.to_owned(), (safetensors::Dtype::I8, shape, codes));
        if !tensors.contains_key("model.layers.1.self_attn.o_proj.weight_scale") {
            let scale = (safetensors::Dtype::F32, vec![1], vec![0, 0, 0x80, 0x3f]);
            tensors.insert("model.layers.1.self_attn.o_proj.weight_scale".to_owned(), scale);
        }
    });
    let source = model.open().expect("can be cut");
    let undecoded = source.spec().undecoded.as_ref().expect("is not decoded");
    assert_eq!((undecoded.form.as_str(), undecoded.lacks.as_deref()), ("INT8", None));
    assert_eq!(undecoded.what(), "the layer 1 attention.output is");
    assert!(!source.spec().has_opaque_experts());
}
