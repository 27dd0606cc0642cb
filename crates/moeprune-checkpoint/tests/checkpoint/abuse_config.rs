//! Configs that are no configs, and configs that the tensors contradict.

use std::fs;

use moeprune_checkpoint::check_finite;
use moeprune_core::{LinearId, MlpProjection, TensorId, TensorSource};

use crate::fixture::{Model, RawTensor, check_refused};

const FILE: &str = "model.safetensors";

/// Replaces text of the config of a parity model and checks what opening it says.
#[track_caller]
fn check_in(name: &str, from: &str, to: &str, expected: &[&str]) {
    let model = Model::copy_of(name);
    model.edit_text("config.json", |text| text.replacen(from, to, 1));
    check_refused(model.open(), expected);
}

#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.push("config.json");
    check_in("mixtral", from, to, &expected);
}

#[test]
fn not_a_json_object() {
    for (bytes, expected) in [
        (&b""[..], "is empty (0 bytes)"),
        (b"{", "is not a JSON object"),
        (b"[1]", "is not a JSON object"),
        (b"{\"a\": NaN}", "lacks `model_type`"),
        (b"{} {}", "is not a JSON object"),
        (b"{\"a\": \"\xff\"}", "is not UTF-8"),
        (b"{}", "lacks `model_type`"),
        (b"{\"model_type\": 3}", "`model_type` must be a string, got 3"),
    ] {
        let model = Model::copy_of("mixtral");
        fs::write(model.path("config.json"), bytes).expect("writes");
        check_refused(model.open(), &["config.json", expected]);
    }
    let model = Model::copy_of("mixtral");
    fs::remove_file(model.path("config.json")).expect("removes");
    check_refused(model.open(), &["has no config.json"]);
}

#[test]
fn nesting_does_not_exhaust_the_stack() {
    let deep = format!("{{\"a\": {}", "[".repeat(1_000_000));
    let model = Model::copy_of("mixtral");
    fs::write(model.path("config.json"), deep).expect("writes");
    check_refused(model.open(), &["is not a JSON object"]);
}

#[test]
fn missing_and_repeated_keys() {
    check("\"hidden_size\"", "\"hidden\"", &["lacks `hidden_size`"]);
    check("\"num_local_experts\": 8", "\"n\": 8", &["lacks `num_local_experts` or `num_experts`"]);
    check("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": null", &["lacks"]);
    check("\"use_cache\"", "\"hidden_size\"", &["`hidden_size` appears twice"]);
}

#[test]
fn wrong_types() {
    let whole = "must be a whole number from 1 to 2147483648, got";
    check("\"hidden_size\": 64", "\"hidden_size\": \"wide\"", &[whole, "\"wide\""]);
    check("\"hidden_size\": 64", "\"hidden_size\": \"64.5\"", &[whole, "\"64.5\""]);
    check("\"hidden_size\": 64", "\"hidden_size\": 64.5", &[whole, "64.5"]);
    check("\"hidden_size\": 64", "\"hidden_size\": NaN", &[whole, "got NaN"]);
    check("\"hidden_size\": 64", "\"hidden_size\": -Infinity", &[whole, "got -Infinity"]);
    check("\"hidden_size\": 64", "\"hidden_size\": -64", &[whole, "-64"]);
    check("\"hidden_size\": 64", "\"hidden_size\": 0", &[whole, "got 0"]);
    check("\"hidden_size\": 64", "\"hidden_size\": {}", &[whole, "got {}"]);
    check("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", &["must be a positive number, got 0"]);
    check("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e999", &["config.json"]);
    check(
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": 2",
        &["true or false, got 2"],
    );
    check("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", &["`gelu`; only silu"]);
    check("\"dtype\": \"bfloat16\"", "\"dtype\": \"bfloat16\", \"torch_dtype\": 1", &["dtype"]);
}

#[test]
fn absurd_numbers_allocate_nothing() {
    for number in ["1000000000000000000", "1e18", "18446744073709551616", "2147483649"] {
        for key in [
            "num_hidden_layers\": 3",
            "num_local_experts\": 8",
            "hidden_size\": 64",
            "vocab_size\": 256",
            "num_attention_heads\": 4",
            "num_experts_per_tok\": 2",
        ] {
            let name = key.split('"').next().expect("a name");
            let to = format!("{name}\": {number}");
            check(key, &to, &[name, "must be a whole number", number]);
        }
    }
    let largest = "2147483648";
    check(
        "num_hidden_layers\": 3",
        &format!("num_hidden_layers\": {largest}"),
        &["`num_hidden_layers` is 2147483648", "those of 3 decoder layers"],
    );
    check(
        "num_local_experts\": 8",
        &format!("num_local_experts\": {largest}"),
        &["says 2147483648 experts, the router has 8 rows, and there are tensors of 8 experts"],
    );
    check(
        "intermediate_size\": 96",
        &format!("intermediate_size\": {largest}"),
        &["is [96, 64] in model.safetensors, but config.json asks for [2147483648, 64]"],
    );
}

#[test]
fn unknown_family() {
    check(
        "\"model_type\": \"mixtral\"",
        "\"model_type\": \"jetmoe\"",
        &["`jetmoe` is not a known family (arctic, deepseek_v2, ", "(`--family FILE`)"],
    );
}

#[test]
fn what_is_not_implemented_is_refused() {
    check(
        "\"use_cache\": true",
        "\"rope_scaling\": {\"type\": \"longrope\"}",
        &["`rope_scaling.type` is \"longrope\" but `rope_parameters.rope_type` is \"default\""],
    );
    check(
        "\"rope_type\": \"default\"",
        "\"rope_type\": \"proportional\"",
        &["`rope_parameters.rope_type` is `proportional`"],
    );
    check(
        "\"use_cache\": true",
        "\"quantization_config\": {\"bits\": 4}",
        &["no tensor is in codes"],
    );
}

#[test]
fn contradictions_within_the_config() {
    check(
        "\"use_cache\": true",
        "\"num_experts\": 9",
        &["`num_local_experts` is 8 but `num_experts` is 9; they mean the same"],
    );
    check(
        "\"use_cache\": true",
        "\"rope_theta\": 10000",
        &["`rope_theta` is 10000 but `rope_parameters.rope_theta` is 1000000.0"],
    );
    check("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", &["not a multiple of"]);
    check("\"num_attention_heads\": 4", "\"num_attention_heads\": 6", &["does not divide"]);
}

#[test]
fn top_k_above_the_experts() {
    check(
        "\"num_experts_per_tok\": 2",
        "\"num_experts_per_tok\": 9",
        &["`num_experts_per_tok` is 9, but layer 0 has 8 experts"],
    );
}

#[test]
fn expert_count_against_tensors_and_router() {
    let agree = "the three must agree";
    for count in ["7", "9"] {
        check_in(
            "mixtral",
            "\"num_local_experts\": 8",
            &format!("\"num_local_experts\": {count}"),
            &["layer 0: `num_local_experts`", &format!("says {count} experts"), agree],
        );
    }
    check(
        "\"num_local_experts\": 8",
        "\"num_local_experts\": [8, 8]",
        &["expected one count per layer, 3 in all, got [8, 8]"],
    );
    check(
        "\"num_local_experts\": 8",
        "\"num_local_experts\": [8, 8, -8]",
        &["expected a whole number, or a list of them"],
    );
    check_in(
        "mixtral",
        "\"num_local_experts\": 8",
        "\"num_local_experts\": [8, 8, 7]",
        &["layer 2", "says 7 experts, the router has 8 rows", agree],
    );

    let router = "model.layers.1.block_sparse_moe.gate.weight";
    check_tensors(
        |tensors| {
            let router = tensors.iter_mut().find(|t| t.name == router).expect("is there");
            router.shape = vec![7, 64];
            router.bytes.truncate(7 * 64 * 2);
        },
        &["layer 1", "says 8 experts, the router has 7 rows", "tensors of 8 experts"],
    );
    check_tensors(
        |tensors| {
            tensors.retain(|t| !t.name.starts_with("model.layers.2.block_sparse_moe.experts.3."))
        },
        &["layer 2", "tensors of 7 experts (expert 3 is missing)", agree],
    );
    check_tensors(
        |tensors| tensors.retain(|t| t.name != router),
        &[
            "model.layers.1.block_sparse_moe.gate.weight",
            "is missing; expected as `layer 1 router`",
        ],
    );
}

/// Changes the tensors of a Mixtral and checks what opening it says.
#[track_caller]
fn check_tensors(edit: impl Fn(&mut Vec<RawTensor>), expected: &[&str]) {
    let model = Model::copy_of("mixtral");
    model.edit_tensors(FILE, edit);
    check_refused(model.open(), expected);
}

fn rename(from: &'static str, to: &'static str) -> impl Fn(&mut Vec<RawTensor>) {
    move |tensors| {
        let tensor = tensors.iter_mut().find(|t| t.name == from).expect("is there");
        tensor.name = to.to_owned();
    }
}

fn add(name: &'static str) -> impl Fn(&mut Vec<RawTensor>) {
    move |tensors| {
        let (dtype, bytes) = ("F32".to_owned(), vec![0; 4]);
        tensors.push(RawTensor { name: name.to_owned(), dtype, shape: vec![1], bytes });
    }
}

#[test]
fn parts_that_are_missing_or_misshapen() {
    check_tensors(
        rename("model.norm.weight", "model.final_norm.weight"),
        &["`model.norm.weight`", "is missing; expected as `final norm`"],
    );
    check_tensors(
        |tensors| tensors.retain(|t| !t.name.contains("1.block_sparse_moe.experts.5.w2")),
        &["`model.layers.1.block_sparse_moe.experts.5.w2.weight`", "layer 1 expert.5.down"],
    );
    check_tensors(
        |tensors| {
            let tensor = tensors.iter_mut().find(|t| t.name.contains("2.self_attn.k_proj"));
            tensor.expect("is there").shape = vec![64, 32];
        },
        &["k_proj", "is [64, 32] in model.safetensors, but config.json asks for [32, 64]"],
    );
    check_tensors(
        |tensors| {
            let tensor = tensors.iter_mut().find(|t| t.name.contains("0.experts.0.w1"));
            let tensor = match tensor {
                Some(tensor) => tensor,
                None => tensors.iter_mut().find(|t| t.name.contains("experts.0.w1")).expect("is"),
            };
            tensor.dtype = "F8_E4M3".into();
            tensor.bytes.truncate(96 * 64);
        },
        &["weight_scale_inv", "is missing beside `weight`, which is FP8"],
    );
}

#[test]
fn unknown_tensors_of_a_layer_are_refused() {
    for name in [
        "model.layers.0.block_sparse_moe.experts.3.w1.weight_scale_inv",
        "model.layers.0.block_sparse_moe.gate.e_score_correction_bias",
        "model.layers.2.self_attn.q_proj.bias",
        "model.layers.1.block_sparse_moe.shared_expert.w1.weight",
        "model.layers.2.self_attn.q_norm.weight",
    ] {
        check_tensors(add(name), &[name, "knows no such part", "layers.carried"]);
    }
}

#[test]
fn the_nearest_part_is_named() {
    fn check(name: &'static str, nearest: &str) {
        check_tensors(add(name), &[name, &format!("the nearest is `{nearest}`")]);
    }
    check(
        "model.layers.0.block_sparse_moe.experts.3.w1.weight_scale_inv",
        "model.layers.0.block_sparse_moe.experts.3.w1.weight",
    );
    check("model.layers.2.self_attn.q_prj.weight", "model.layers.2.self_attn.q_proj.weight");
    check(
        "model.layers.1.block_sparse_moe.router.weight",
        "model.layers.1.block_sparse_moe.gate.weight",
    );
}

#[test]
fn quantization_is_named_before_what_it_stores() {
    let model = Model::copy_of("mixtral");
    model.edit_text("config.json", |text| {
        text.replacen('{', "{\"quantization_config\": {\"quant_method\": \"fp8\"},", 1)
    });
    model.edit_tensors(FILE, add("model.layers.0.block_sparse_moe.experts.3.w1.weight_scale_inv"));
    let message = model.open().expect_err("is quantized").to_string();
    assert!(message.contains("`quantization_config`"), "{message}");
    assert!(message.contains("start from the bf16"), "{message}");
}

#[test]
fn unknown_tensors_elsewhere_are_carried_over() {
    let model = Model::copy_of("mixtral");
    model.edit_tensors(FILE, add("vision.patch.weight"));
    model.edit_tensors(FILE, add("model.layers.1.self_attn.rotary_emb.inv_freq"));
    let checkpoint = model.open().expect("opens");
    let carried = checkpoint.tensors().filter(|t| t.part.is_none()).map(|t| t.name.as_str());
    assert_eq!(
        carried.collect::<Vec<_>>(),
        ["vision.patch.weight", "model.layers.1.self_attn.rotary_emb.inv_freq"]
    );
}

#[test]
fn layers_the_config_does_not_know() {
    check_tensors(
        rename("model.norm.weight", "model.layers.3.input_layernorm.weight"),
        &["`num_hidden_layers` is 3, but the tensors are those of 4 decoder layers"],
    );
    check_tensors(
        rename("model.norm.weight", "model.layers.99999999999.input_layernorm.weight"),
        &["tensors of decoder layer 99999999999 but none of layer 3"],
    );
    check("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", &["those of 3 decoder layers"]);
}

#[test]
fn a_block_structure_the_tensors_contradict() {
    check_in(
        "arctic",
        "\"parallel_attn_mlp_res\": true",
        "\"parallel_attn_mlp_res\": false",
        &["residual_layernorm", "a model with this config.json has no such part"],
    );
    check_in(
        "arctic_freq2",
        "\"moe_layer_frequency\": 2",
        "\"moe_layer_frequency\": 1",
        &["layer 0", "says 8 experts, the router is missing, and there are tensors of 0 experts"],
    );
    check_in(
        "arctic",
        "\"moe_layer_frequency\": 1",
        "\"moe_layer_frequency\": 3",
        &["`model.layers.0.block_sparse_moe.mlp.w1.weight`", "is missing"],
    );
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let (inf, nan) = ([0x80, 0xff], [0xc1, 0x7f]);
    let name = "model.layers.1.block_sparse_moe.experts.6.w2.weight";
    let id = TensorId::linear(1, LinearId::Expert(6, MlpProjection::Down));
    for (bytes, shown) in [(nan, "NaN"), (inf, "-inf")] {
        let model = Model::copy_of("mixtral");
        model.edit_tensors(FILE, |tensors| {
            let tensor = tensors.iter_mut().find(|t| t.name == name).expect("is there");
            tensor.bytes[2 * (63 * 96 + 5)..][..2].copy_from_slice(&bytes);
        });
        let checkpoint = model.open().expect("headers are fine");
        let tensor = checkpoint.tensor(id).expect("reads");
        check_refused(
            check_finite(name, &tensor),
            &[name, shown, "at row 63, column 5", "download the file again"],
        );
    }
}
