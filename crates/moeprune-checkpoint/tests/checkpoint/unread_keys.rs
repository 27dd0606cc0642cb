//! Config keys that a family does not read: refused where they ask for other arithmetic than it has.

use std::fs;

use crate::fixture::{Model, check_refused, parity};

/// The config of a parity model with further members where the family's keys stand.
fn with(family: &'static str, members: &str) -> Model {
    let model = Model::copy_of(family);
    model.edit_text("config.json", |text| {
        text.replace("\"vocab_size\":", &format!("{members}, \"vocab_size\":"))
    });
    model
}

#[track_caller]
fn check(family: &'static str, member: &str, because: &str) {
    let (key, _) = member.split_once(':').expect("a member");
    check_refused(with(family, member).open(), &["config.json", &key.replace('"', "`"), because]);
}

#[track_caller]
fn check_opens(family: &'static str, members: &str) {
    if let Err(error) = with(family, members).open() {
        panic!("{members}: {error}");
    }
}

const POSITIONS: &str = "may change the angles";

#[test]
fn both_dialects_open() {
    for entry in fs::read_dir(parity("")).expect("lists") {
        let path = entry.expect("an entry").path();
        let Some(hub) = fs::read(path.join("config.hub.json")).ok() else { continue };
        let name = path.file_name().expect("a name").to_str().expect("is text");
        let name: &'static str = name.to_owned().leak();
        let model = Model::copy_of(name);
        fs::write(model.path("config.json"), hub).expect("writes");
        if let Err(error) = model.open() {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn positions() {
    for family in ["mixtral", "minimax_m2", "qwen3_5_moe", "lfm2_moe", "gemma4", "llama4"] {
        for member in [
            r#""rope_foo": 1"#,
            r#""rope_foo": ["a"]"#,
            r#""rope_a.b": 1"#,
            r#""rope_ratio": 2"#,
            r#""rope_type": "xyzzy""#,
            r#""rope_local_base_freq": 10000.0"#,
            r#""rope_pct": 0.5"#,
            r#""rope_interleaved": true"#,
            r#""rotary_pct": 0.5"#,
            r#""rotary_emb_base": 5"#,
        ] {
            check(family, member, POSITIONS);
        }
        let nothing = r#""rope_foo": null, "rope_type": "default", "rope_ratio": 1.0,
            "rotary_interleaved": false, "rotary_scaling": {}"#;
        check_opens(family, nothing);
    }
    check("mixtral", r#""rotary_dim": 16"#, POSITIONS);
    check("deepseek_v2", r#""rope_interleave": true"#, POSITIONS);
    check_opens("deepseek_v3", r#""rope_foo": false"#);
    for nothing_turns in ["kimi_linear", "nemotron_h"] {
        check_opens(nothing_turns, r#""rope_foo": 3, "rope_ratio": 2"#);
    }
}

#[test]
fn positions_by_kind_of_layer() {
    let edited = |from: &str, to: &str| {
        let model = Model::copy_of("gemma4");
        model.edit_text("config.json", |text| text.replacen(from, to, 1));
        model.open()
    };
    for scaling in ["null", "{}", r#"{"type": "default"}"#, r#"{"factor": 1}"#] {
        check_opens("gemma4", &format!("\"rope_scaling\": {scaling}"));
    }
    check("gemma4", r#""rope_scaling": {"type": "yarn", "factor": 4}"#, POSITIONS);
    check("gemma4", r#""rope_theta": 5"#, POSITIONS);
    let holder = "\"rope_parameters\": {";
    let beside = format!("{holder}\"other\": {{\"rope_theta\": 5}}, ");
    check_refused(edited(holder, &beside), &["`rope_parameters.other`", POSITIONS]);
    edited(holder, &format!("{holder}\"rope_type\": \"default\", ")).expect("says nothing");
    check_refused(
        edited("\"proportional\"", "\"xyzzy\""),
        &["`rope_parameters.full_attention.rope_type` is `xyzzy`"],
    );
}

#[test]
fn scores_choices_norms_and_activations() {
    let score = "another score of experts";
    check("mixtral", r#""scoring_func": "sigmoid""#, score);
    check("mixtral", r#""scoring_func": 3"#, score);
    check("qwen3_moe_mixed", r#""scoring_func": "xyzzy""#, score);
    check("glm4_moe", r#""scoring_func": "softmax""#, score);
    check("lfm2_moe", r#""moe_router_activation_func": "softmax""#, score);
    check("ernie4_5_moe", r#""moe_gate_act": "sigmoid""#, score);
    check_opens("ernie4_5_moe", r#""moe_gate_act": "softmax""#);
    check_opens("mixtral", r#""scoring_func": "softmax""#);
    check_opens("glm4_moe", r#""scoring_func": "sigmoid", "topk_method": "noaux_tc""#);
    let choice = "another choice of experts";
    check("mixtral", r#""topk_method": "noaux_tc""#, choice);
    check("minimax_m2", r#""topk_method": "greedy""#, choice);
    check_opens("mixtral", r#""topk_method": "greedy""#);
    let norm = "other norms";
    for family in ["mixtral", "glm4_moe", "nemotron_h"] {
        check(family, r#""norm_type": "layernorm""#, norm);
        check_opens(family, r#""norm_type": "rmsnorm", "normalization": "RMSNorm""#);
    }
    check("phimoe", r#""norm_type": "rms""#, norm);
    check_opens("phimoe", r#""norm_type": "layer_norm""#);
    let activation = "another activation";
    check("lfm2_moe", r#""hidden_act": "gelu""#, activation);
    check("gemma4", r#""hidden_act": "silu""#, activation);
    check("mixtral", r#""activation_function": "relu""#, activation);
    check_opens("lfm2_moe", r#""hidden_act": "swish""#);
    check_opens("gemma4", r#""hidden_act": "gelu_pytorch_tanh""#);
    let sums = "divided by their sum";
    check("qwen3_5_moe", r#""norm_topk_prob": false"#, sums);
    check("llama4", r#""norm_topk_prob": true"#, sums);
    check_opens("qwen3_5_moe", r#""norm_topk_prob": true"#);
}

#[test]
fn kinds_of_layers() {
    check("minimax_m2", r#""attn_type_list": [1, 0, 1]"#, "lightning attention");
    check("minimax_m2", r#""attn_type_list": 1"#, "lightning attention");
    check_opens("minimax_m2", r#""attn_type_list": [1, 1, 1]"#);
    for family in ["qwen3_next", "qwen3_5_moe"] {
        check(family, r#""full_attention_interval": 3"#, "name different layers");
        check_opens(family, r#""full_attention_interval": 4"#);
    }
    for family in ["glm_moe_dsa", "deepseek_v32"] {
        let model = Model::copy_of(family);
        model.edit_text("config.json", |text| text.replace("indexed_att", "deepseek_sparse_att"));
        model.open().expect("means the same");
        model.edit_text("config.json", |text| text.replacen("deepseek_sparse", "sliding", 1));
        check_refused(model.open(), &["`layer_types` has `sliding_attention`"]);
    }
}

#[test]
fn without_experts() {
    let model = Model::copy_of("nemotron_h");
    let hub = fs::read_to_string(parity("nemotron_h").join("config.hub.json")).expect("reads");
    let hub = hub.replace("\"MEM*E-\"", "\"MMMMMM\"");
    fs::write(model.path("config.json"), hub).expect("writes");
    check_refused(model.open(), &["none of the 6 layers has experts", "hybrid_override_pattern"]);
}

#[test]
fn another_prefix_beside_a_vision_tower() {
    let model = Model::copy_of("qwen3_vl_moe");
    model.edit_tensors("model.safetensors", |tensors| {
        for tensor in tensors {
            tensor.name = tensor
                .name
                .replace("model.language_model.layers.", "thinker.a.long.prefix.blocks.");
        }
    });
    check_refused(model.open(), &["`thinker.a.long.prefix.blocks.0.input_layernorm.weight`"]);
}
