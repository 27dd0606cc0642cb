//! Families against values that public code computed.

use std::path::Path;

use moeprune_tests::conformance::family::check;

fn check_family(name: &str) {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/parity").join(name));
}

#[test]
fn qwen3_moe() {
    check_family("qwen3_moe_mixed");
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
fn gpt_oss() {
    check_family("gpt_oss");
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
fn llama4() {
    check_family("llama4");
}

#[test]
fn gemma4() {
    check_family("gemma4");
}
