//! Families against values that public code computed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune_tests::conformance::family::check;
use safetensors::SafeTensors;
use serde_json::{Map, Value};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/parity").join(name)
}

fn check_family(name: &str) {
    check(&fixture(name));
}

#[test]
fn qwen3_moe() {
    check_family("qwen3_moe_mixed");
}

#[test]
fn qwen3_moe_with_fused_experts() {
    check_family("qwen3_moe_fused");
}

#[test]
fn qwen2_moe() {
    check_family("qwen2_moe_mixed");
}

#[test]
fn olmoe() {
    check_family("olmoe_clip");
}

#[test]
fn dots1() {
    check_family("dots1");
}

#[test]
fn minimax_m2() {
    check_family("minimax_m2");
}

#[test]
fn glm4_moe() {
    check_family("glm4_moe");
}

#[test]
fn deepseek_v3() {
    check_family("deepseek_v3");
}

#[test]
fn moonlight() {
    check_family("moonlight");
}

#[test]
fn deepseek_v2() {
    check_family("deepseek_v2");
}

#[test]
fn glm4_moe_lite() {
    check_family("glm4_moe_lite");
}

#[test]
fn glm_moe_dsa() {
    check_family("glm_moe_dsa");
}

#[test]
fn deepseek_v32() {
    check_family("deepseek_v32");
}

#[test]
fn gpt_oss() {
    check_family("gpt_oss");
}

#[test]
fn gpt_oss_as_released() {
    check_family("gpt_oss_mxfp4");
}

#[test]
fn granitemoe() {
    check_family("granitemoe");
}

#[test]
fn hunyuan_v1_moe() {
    check_family("hunyuan_v1_moe");
}

#[test]
fn ernie4_5_moe() {
    check_family("ernie4_5_moe");
}

#[test]
fn qwen3_vl_moe() {
    check_family("qwen3_vl_moe");
}

#[test]
fn qwen3_next() {
    check_family("qwen3_next");
}

#[test]
fn qwen3_5_moe() {
    check_family("qwen3_5_moe");
}

/// The text model of `qwen3_5_moe` in files of its own: without the vision tower, and everything a level
/// higher.
#[test]
fn qwen3_5_moe_text() {
    let (from, to) = (fixture("qwen3_5_moe"), tempfile::tempdir().expect("a place"));
    let object = |file: &str| -> Map<String, Value> {
        let bytes = fs::read(from.join(file)).expect("can be read");
        serde_json::from_slice(&bytes).expect("an object")
    };
    let write = |file: &str, bytes: Vec<u8>| {
        fs::write(to.path().join(file), bytes).expect("can be written");
    };
    for file in ["config.json", "config.hub.json"] {
        write(file, object(file)["text_config"].to_string().into());
    }
    let renamed = |name: &str| name.replacen("model.language_model.", "model.", 1);
    let mut pruned = object("pruned.json");
    for (_, value) in &mut pruned {
        let members = value.as_object().into_iter().flatten();
        let is_left = |(name, _): &(&String, _)| !name.starts_with("model.visual.");
        let members = members.filter(is_left);
        let members = members.map(|(key, value)| (key.replace("text_config.", ""), value));
        *value = members.map(|(key, value)| (renamed(&key), value.clone())).collect();
    }
    write("pruned.json", Value::from(pruned).to_string().into());
    let bytes = fs::read(from.join("model.safetensors")).expect("can be read");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors").tensors().into_iter();
    let tensors = tensors.filter(|(name, _)| !name.starts_with("model.visual."));
    let tensors = tensors.map(|(name, view)| (renamed(&name), view));
    write("model.safetensors", safetensors::serialize(tensors, None).expect("can be written"));
    fs::copy(from.join("ref.safetensors"), to.path().join("ref.safetensors")).expect("copies");
    check(to.path());
}

#[test]
fn kimi_linear() {
    check_family("kimi_linear");
}

#[test]
fn lfm2_moe() {
    check_family("lfm2_moe");
}

#[test]
fn phimoe() {
    check_family("phimoe");
}

#[test]
fn nemotron_h() {
    check_family("nemotron_h");
}

#[test]
fn llama4() {
    check_family("llama4");
}

#[test]
fn gemma4() {
    check_family("gemma4");
}
