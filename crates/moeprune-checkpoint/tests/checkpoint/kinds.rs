//! Attention, layers and routers as configs of other families say.

use moeprune_core::{
    Activation, AttentionSpec, ClampedSwiglu, GroupedAttention, MlpSpec, MoeSpec, QueryKeyNorm,
    QueryTemperature, Reach, RotaryScaling, RotaryStyle, RouterSpec, ValueSource,
};

use crate::fixture::{Model, check_refused, parity};

/// A copy of a model with one text of its config in place of another.
#[track_caller]
fn edited(name: &str, from: &str, to: &str) -> Model {
    let model = Model::copy_of(name);
    model.edit_text("config.json", |text| text.replacen(from, to, 1));
    model
}

#[track_caller]
fn check(name: &str, from: &str, to: &str, expected: &[&str]) {
    check_refused(edited(name, from, to).open(), expected);
}

#[track_caller]
fn grouped(model: &Model, layer: usize) -> GroupedAttention {
    let spec = model.open().unwrap_or_else(|error| panic!("{error}")).spec().clone();
    match &spec.layers[layer].attention {
        AttentionSpec::Grouped(attention) => attention.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_there_only_if_the_config_says_so() {
    let glm = grouped(&Model::copy_of("glm4_moe"), 1);
    assert_eq!((glm.biases.query_key_value, glm.biases.output), (true, false));
    assert_eq!(glm.norm, Some(QueryKeyNorm::PerHead));
    check(
        "glm4_moe",
        "\"attention_bias\": true",
        "\"attention_bias\": false",
        &["`attention_bias` is false, but there is a `self_attn.q_proj.bias` in layer 0"],
    );
    check(
        "glm4_moe",
        "\"use_qk_norm\": true",
        "\"other\": true",
        &["`use_qk_norm` is not there, which means false", "`self_attn.q_norm.weight` in layer 0"],
    );
    check(
        "qwen3_moe_mixed",
        "\"attention_bias\": false",
        "\"attention_bias\": true",
        &["`attention_bias` is true, but there is no `self_attn.q_proj.bias` in layer 0"],
    );
    check(
        "deepseek_v3",
        "\"attention_bias\": false",
        "\"attention_bias\": true",
        &["`attention_bias` is true, but there is no `self_attn.kv_a_proj_with_mqa.bias`"],
    );
    check(
        "deepseek_v3",
        "\"q_lora_rank\": 24",
        "\"q_lora_rank\": null",
        &["self_attn.q_proj.weight", "is missing"],
    );
}

#[test]
fn heads_of_which_a_part_turns() {
    let dims = |model: &Model| grouped(model, 0).rotary.expect("turns").dims;
    let glm = |to: &str| edited("glm4_moe", "\"partial_rotary_factor\": 0.5", to);
    assert_eq!(dims(&Model::copy_of("glm4_moe")), 12);
    assert_eq!(dims(&glm("\"partial_rotary_factor\": 0.25")), 6);
    assert_eq!(dims(&glm("\"factor\": 1.0")), 12);
    check(
        "minimax_m2",
        "\"hidden_act\"",
        "\"rotary_dim\": 10, \"hidden_act\"",
        &["`rotary_dim` is 10, but", "is 0.5, which is 12 of 24"],
    );
    check(
        "qwen3_moe_mixed",
        "\"hidden_act\"",
        "\"partial_rotary_factor\": 0.5, \"hidden_act\"",
        &["`partial_rotary_factor", "heads of this family turn as a whole"],
    );
}

#[test]
fn dimensions_that_turn_in_pairs_or_halves() {
    let style = |model: &Model| match &model.open().expect("opens").spec().layers[0].attention {
        AttentionSpec::Latent(latent) => latent.rotary.clone().expect("turns").style,
        other => panic!("{other:?}"),
    };
    assert_eq!(style(&Model::copy_of("deepseek_v3")), RotaryStyle::Pair);
    assert_eq!(style(&Model::copy_of("deepseek_v2")), RotaryStyle::Pair);
    let halves = edited("deepseek_v3", "\"rope_interleave\": true", "\"rope_interleave\": false");
    assert_eq!(style(&halves), RotaryStyle::Half);
}

#[test]
fn windows() {
    let windows = |model: &Model| [0, 1, 2].map(|layer| grouped(model, layer).reach);
    let sliding = "\"sliding_window\": 7, \"use_sliding_window\": true, \"was\": null";
    let qwen3 = Model::copy_of("qwen3_moe_mixed");
    assert_eq!(windows(&qwen3), [Reach::Everything; 3]);
    let without = |text: String| {
        text.replace("\"use_sliding_window\": false", "\"was_not\": false").replacen(
            "\"sliding_window\": null",
            sliding,
            1,
        )
    };
    qwen3.edit_text("config.json", without);
    assert_eq!(windows(&qwen3), [Reach::Window(7); 3]);

    let qwen2 = Model::copy_of("qwen2_moe_mixed");
    assert_eq!(windows(&qwen2), [Reach::Everything; 3]);
    qwen2.edit_text("config.json", |text| {
        text.replace("\"use_sliding_window\": false", "\"use_sliding_window\": true")
            .replace("\"sliding_window\": 0", "\"sliding_window\": 5")
            .replacen("\"full_attention\"", "\"sliding_attention\"", 1)
    });
    assert_eq!(windows(&qwen2), [Reach::Window(5), Reach::Everything, Reach::Everything]);
    qwen2.edit_text("config.json", |text| text.replace("\"layer_types\"", "\"no_types\""));
    assert_eq!(windows(&qwen2), [Reach::Window(5), Reach::Everything, Reach::Window(5)]);
    qwen2.edit_text("config.json", |text| text.replace("layers\": 28", "layers\": 2"));
    assert_eq!(windows(&qwen2), [Reach::Window(5), Reach::Everything, Reach::Everything]);

    let dots = edited("dots1", "\"sliding_window\": null", "\"sliding_window\": 9");
    assert_eq!(windows(&dots), [Reach::Everything; 3]);
    dots.edit_text("config.json", |text| {
        text.replace("\"layer_types\"", "\"no_types\"").replace("layers\": 62", "layers\": 1")
    });
    assert_eq!(windows(&dots), [Reach::Everything, Reach::Window(9), Reach::Window(9)]);
}

#[test]
fn layers_without_experts() {
    let glm = |from: &str, to: &str| edited("glm4_moe_lite", from, to);
    let first = "\"first_k_dense_replace\": 1, \"hidden_act\"";
    glm("\"hidden_act\"", first).open().expect("both say the same");
    check(
        "glm4_moe_lite",
        "\"hidden_act\"",
        "\"first_k_dense_replace\": 2, \"hidden_act\"",
        &["`first_k_dense_replace` and the list of layer types name different layers"],
    );
    check("glm4_moe_lite", "\"dense\"", "\"thin\"", &["has `thin`, expected `sparse` or `dense`"]);
    check(
        "deepseek_v3",
        "\"hidden_act\"",
        "\"moe_layer_freq\": 2, \"hidden_act\"",
        &["`moe_layer_freq` is 2"],
    );
}

#[test]
fn groups_of_experts() {
    let groups = |model: &Model| match &model.open().expect("opens").spec().layers[1].moe() {
        Some(moe) => match &moe.router {
            RouterSpec::Scored(router) => {
                router.groups.map(|groups| (groups.count, groups.selected))
            }
            RouterSpec::SparseMixer(_) | RouterSpec::Opaque(_) => None,
        },
        None => None,
    };
    assert_eq!(groups(&Model::copy_of("deepseek_v3")), Some((4, 2)));
    assert_eq!(groups(&Model::copy_of("moonlight")), None);
    let greedy = edited("deepseek_v2", "\"group_limited_greedy\"", "\"greedy\"");
    assert_eq!(groups(&greedy), None);
    check("deepseek_v3", "\"n_group\": 4", "\"n_group\": 5", &["a multiple of 5"]);
    check("deepseek_v3", "\"topk_group\": 2", "\"topk_group\": 5", &["there are 4 groups"]);
    check("deepseek_v3", "\"topk_group\": 2", "\"topk_group\": 1", &["4 experts per token"]);
    check(
        "deepseek_v2",
        "\"group_limited_greedy\"",
        "\"noaux_tc\"",
        &["`topk_method` is \"noaux_tc\""],
    );
    check(
        "deepseek_v3",
        "\"hidden_act\"",
        "\"scoring_func\": \"softmax\", \"hidden_act\"",
        &["`scoring_func` is \"softmax\""],
    );
}

#[test]
fn kimi_k2_is_read_as_deepseek_v3() {
    let kimi = edited("moonlight", "\"deepseek_v3\"", "\"kimi_k2\"");
    let (kimi, same) = (kimi.open().expect("opens"), Model::copy_of("moonlight"));
    assert_eq!(kimi.spec(), same.open().expect("opens").spec());
    assert!(parity("moonlight").exists());
}

#[test]
fn attention_by_layer() {
    let kinds = |name: &str| {
        let model = Model::copy_of(name);
        let spec = model.open().unwrap_or_else(|error| panic!("{error}")).spec().clone();
        spec.layers.iter().map(|layer| layer.attention.kind()).collect::<Vec<_>>()
    };
    let delta = "gated_delta";
    assert_eq!(kinds("qwen3_next"), [delta, delta, delta, "grouped"]);
    assert_eq!(kinds("kimi_linear"), ["kimi_delta", "kimi_delta", "latent"]);
    let conv = "short_convolution";
    assert_eq!(kinds("lfm2_moe"), [conv, conv, "grouped", conv]);
    let word = &["layer 2 is of type `conv`, expected one of `full_attention`, `linear_attention`"];
    check(
        "qwen3_5_moe",
        "\"linear_attention\",\n      \"full_attention\"",
        "\"conv\",\n      \"full_attention\"",
        word,
    );
    check(
        "qwen3_next",
        "\"linear_attention\",\n    \"full_attention\"",
        "\"full_attention\",\n    \"full_attention\"",
        &["layers.2.self_attn.q_proj.weight", "is missing"],
    );
    check("kimi_linear", "\"layer_types\"", "\"other\"", &["lacks `layer_types` or "]);
    check(
        "qwen3_next",
        "\"linear_num_value_heads\": 4",
        "\"linear_num_value_heads\": 3",
        &["`linear_num_value_heads` is 3, not a multiple of `linear_num_key_heads`, 2"],
    );
    check(
        "qwen3_next",
        "\"linear_key_head_dim\": 8",
        "\"linear_key_head_dim\": 2147483648",
        &["2 heads of width 2147483648 are too wide"],
    );
    check("lfm2_moe", "\"conv_bias\": false", "\"conv_bias\": true", &["`conv_bias` is true, but"]);
}

#[test]
fn keys_of_an_object() {
    check("qwen3_5_moe", "\"text_config\"", "\"other\"", &["lacks the object `text_config`"]);
    check(
        "qwen3_5_moe",
        "  \"tie_word_embeddings\": false,\n  \"transformers",
        "  \"tie_word_embeddings\": true,\n  \"transformers",
        &["`tie_word_embeddings` is false but `/tie_word_embeddings` is true"],
    );
    let quantized = "\"architectures\"";
    let with = "\"quantization_config\": {}, \"architectures\"";
    check("qwen3_5_moe", quantized, with, &["no tensor is in codes"]);
}

#[test]
fn experts_per_token_as_a_list() {
    let hunyuan = |list: &str| {
        let model = Model::copy_of("hunyuan_v1_moe");
        let list = format!("\"moe_topk\": {list}, \"was\": [");
        model.edit_text("config.json", |text| text.replacen("\"moe_topk\": [", &list, 1));
        model
    };
    let top_k = |model: &Model| {
        let spec = model.open().unwrap_or_else(|error| panic!("{error}")).spec().clone();
        spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.top_k).collect::<Vec<_>>()
    };
    assert_eq!(top_k(&hunyuan("[3, 2]")), [3, 2]);
    assert_eq!(top_k(&hunyuan("4")), [4, 4]);
    let refused = |list: &str, expected: &str| {
        check_refused(hunyuan(list).open(), &["`moe_topk`", expected]);
    };
    refused("[3]", "has length 1, expected 2, one entry per layer");
    refused("[3, 11]", "is 11, but layer 1 has 10 experts");
    refused("[3, 0]", "must be a whole number from 1 to 2147483648, or a list of such numbers");
}

#[test]
fn a_range_of_layers_with_experts() {
    let last = |to: &str| edited("ernie4_5_moe", "\"moe_layer_end_index\": 2", to);
    last("\"moe_layer_end_index\": -1").open().expect("-1 is the last");
    last("\"other\": 2").open().expect("the last is the default");
    check(
        "ernie4_5_moe",
        "\"moe_layer_end_index\": 2",
        "\"moe_layer_end_index\": 1",
        &["model.layers.2.mlp.gate_proj.weight", "is missing"],
    );
    check(
        "ernie4_5_moe",
        "\"moe_layer_end_index\": 2",
        "\"moe_layer_end_index\": -2",
        &["`moe_layer_end_index` must be the number of a layer, or -1"],
    );
    check(
        "ernie4_5_moe",
        "\"use_bias\": false",
        "\"use_bias\": true",
        &["`use_bias` is true, but there is no `self_attn.q_proj.bias` in layer 0"],
    );
}

#[test]
fn positions_beyond_those_that_are_known() {
    let phi = Model::copy_of("phimoe");
    assert_eq!(phi.open().expect("opens").spec().max_positions, 128);
    phi.edit_text("config.json", |text| {
        text.replace("embeddings\": 512", "embeddings\": 100")
            .replace("window\": 512", "window\": 5")
    });
    assert_eq!(phi.open().expect("opens").spec().max_positions, 100);
    assert_eq!(grouped(&phi, 1).reach, Reach::Window(5));
}

#[test]
fn limits_of_gates() {
    let clamps = |model: &Model| match &model.open().expect("opens").spec().layers[0].moe() {
        Some(MoeSpec { expert: MlpSpec { activation, .. }, .. }) => *activation,
        None => panic!("no experts"),
    };
    let expected = |alpha, limit| Activation::ClampedSwiglu(ClampedSwiglu { alpha, limit });
    assert_eq!(clamps(&Model::copy_of("gpt_oss")), expected(1.702, 7.0));
    let other = edited("gpt_oss", "\"swiglu_limit\": 7.0", "\"swiglu_limit\": 3.5");
    assert_eq!(clamps(&other), expected(1.702, 3.5));
}

#[test]
fn layers_that_turn_by_switches_or_interval() {
    let turns = |model: &Model| {
        [0, 1, 2, 3].map(|layer| {
            let GroupedAttention { rotary, norm, reach, temperature, .. } = grouped(model, layer);
            let turns = rotary.is_some();
            let expected = if turns { Reach::Chunk(8) } else { Reach::Everything };
            assert_eq!((reach, norm.is_some(), temperature.is_some()), (expected, turns, !turns));
            turns
        })
    };
    let llama = Model::copy_of("llama4");
    assert_eq!(turns(&llama), [true, true, true, false]);
    let edit = |from: &str, to: &str| {
        llama.edit_text("config.json", |text| text.replacen(from, to, 1));
        turns(&llama)
    };
    assert_eq!(edit("\"layer_types\"", "\"was_types\""), [true, true, true, false]);
    let list = "\"no_rope_layers\": [\n      1,\n      1,\n      1,\n      0\n    ]";
    assert_eq!(edit(list, "\"no_rope_layers\": [0, 1, 0, 1]"), [false, true, false, true]);
    // An empty list says nothing.
    let empty = "\"no_rope_layers\": []";
    assert_eq!(edit("\"no_rope_layers\": [0, 1, 0, 1]", empty), [true, true, true, false]);
    let interval = "\"no_rope_layer_interval\": 2";
    assert_eq!(edit("\"no_rope_layer_interval\": 4", interval), [true, false, true, false]);
    check(
        "llama4",
        list,
        "\"no_rope_layers\": [1, 1, 0, 0]",
        &["`layer_types` and `no_rope_layers` name different layers"],
    );
    check("llama4", list, "\"no_rope_layers\": [1, 1]", &["has length 2, expected 4"]);
    check("llama4", list, "\"no_rope_layers\": [1, 1, 1, 2]", &["a list of 0 and 1"]);
}

#[test]
fn temperatures_and_norms_that_may_be_off() {
    let of = |from: &str, to: &str, layer| grouped(&edited("llama4", from, to), layer);
    for on in ["4", "1.0"] {
        let to = format!("\"attn_temperature_tuning\": {on}");
        let tuned = of("\"attn_temperature_tuning\": true", &to, 3).temperature;
        assert_eq!(tuned, Some(QueryTemperature { scale: 0.1, floor: 4.0 }), "{on}");
    }
    for off in ["false", "0"] {
        let to = format!("\"attn_temperature_tuning\": {off}");
        assert_eq!(of("\"attn_temperature_tuning\": true", &to, 3).temperature, None, "{off}");
    }
    assert_eq!(of("\"use_qk_norm\": true", "\"use_qk_norm\": false", 0).norm, None);
}

#[test]
fn layers_with_experts_by_a_list_or_an_interval() {
    let experts = |model: &Model| {
        let spec = model.open().unwrap_or_else(|error| panic!("{error}")).spec().clone();
        spec.layers.iter().map(|layer| layer.moe().is_some()).collect::<Vec<_>>()
    };
    // The list alone counts.
    let listed = edited("llama4", "layer_step\": 2", "layer_step\": 1");
    assert_eq!(experts(&listed), [false, true, false, true]);
    assert_eq!(experts(&edited("llama4", "\"moe_layers\"", "\"was\"")), [false, true, false, true]);
}

/// The layer of Gemma's that has widths of its own, in both dialects.
#[test]
fn widths_of_single_layers() {
    let widths = |attention: GroupedAttention| (attention.kv_heads, attention.head_dim);
    let gemma = Model::copy_of("gemma4");
    assert_eq!([0, 2].map(|layer| widths(grouped(&gemma, layer))), [(2, 16), (1, 32)]);
    let hub = std::fs::read(parity("gemma4").join("config.hub.json")).expect("reads");
    std::fs::write(gemma.path("config.json"), hub).expect("writes");
    let of_last = grouped(&gemma, 2);
    assert_eq!(of_last.values, ValueSource::Keys);
    assert_eq!(
        of_last.rotary.as_ref().map(|rotary| (rotary.dims, rotary.scaling.clone())),
        Some((32, RotaryScaling::Proportional { pairs: 4, factor: 1.0 }))
    );
    assert_eq!(widths(of_last), (1, 32));
    gemma.edit_text("config.json", |text| {
        text.replace("\"attention_k_eq_v\": true", "\"attention_k_eq_v\": false")
    });
    check_refused(gemma.open(), &["layers.2.self_attn.k_proj.weight", "asks for [64, 64]"]);
    check(
        "gemma4",
        "\"num_key_value_heads\": 1\n",
        "\"num_key_value_heads\": 1, \"sliding_window\": 3\n",
        &["`per_layer_config.2.sliding_window` is not known"],
    );
}

#[test]
fn what_gemma_may_not_ask_for() {
    let cases = [
        (
            "num_kv_shared_layers\": 0",
            "num_kv_shared_layers\": 1",
            "keys and values that layers share",
        ),
        ("per_layer_input\": 0", "per_layer_input\": 8", "embeddings of each layer"),
        ("bidirectional_attention\": null", "bidirectional_attention\": \"all\"", "only causal"),
        ("enable_moe_block\": true", "enable_moe_block\": false", "no experts to prune"),
        ("\"rope_type\": \"proportional\"", "\"rope_type\": \"ntk\"", "is `ntk`"),
        (
            "\"rope_type\": \"default\"",
            "\"other\": 1",
            "`rope_parameters.sliding_attention.other` is not known",
        ),
        (
            "\"hidden_activation\": \"gelu_pytorch_tanh\"",
            "\"hidden_activation\": \"gelu\"",
            "only silu and gelu_pytorch_tanh",
        ),
    ];
    for (from, to, expected) in cases {
        check("gemma4", from, to, &[expected]);
    }
}
