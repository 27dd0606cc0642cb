//! Descriptors: the built-in ones against real names, and those of users.

use moeprune_checkpoint::{Checkpoint, Error, Family};
use moeprune_core::{
    AttentionSpec, FeedForward, GroupedAttention, LayerTensor, LinearId, MlpProjection, MlpSpec,
    MoeInput, RouterSpec, TensorId,
};

use crate::fixture::{Model, PARITY, check_refused, parity};

const MIXTRAL: &str = include_str!("../../families/mixtral.toml");
const ARCTIC: &str = include_str!("../../families/arctic.toml");

#[test]
fn every_name_goes_to_its_part_and_back() {
    for name in PARITY {
        let checkpoint = Checkpoint::open(&parity(name)).expect("opens");
        for tensor in checkpoint.tensors() {
            let part = tensor.part.expect("all parts are known");
            assert_eq!(checkpoint.name_of(part).expect("has a name"), tensor.name);
        }
    }
}

#[test]
fn mixtral_gate_is_w1_and_up_is_w3() {
    for model_type in ["mixtral", "arctic"] {
        let family = Family::builtin(model_type).expect("built in");
        let name = |p| family.name_of(TensorId::linear(2, LinearId::Expert(5, p)));
        for (projection, w) in
            [(MlpProjection::Gate, 1), (MlpProjection::Up, 3), (MlpProjection::Down, 2)]
        {
            let expected = format!("model.layers.2.block_sparse_moe.experts.5.w{w}.weight");
            assert_eq!(name(projection), Some(expected));
        }
    }
}

#[test]
fn arctic_as_released() {
    let spec = Checkpoint::open(&parity("arctic")).expect("opens").spec().clone();
    assert_eq!((spec.hidden, spec.norm_eps), (64, 1e-5));
    let attention = GroupedAttention::new(4, 2, 16, 1e6);
    for layer in &spec.layers {
        assert_eq!(layer.attention, AttentionSpec::Grouped(attention.clone()));
        let moe = layer.moe().expect("all layers have experts");
        assert_eq!((moe.experts, moe.top_k, moe.expert), (8, 2, MlpSpec::gated(48)));
        assert_eq!(moe.input, MoeInput::LayerInput);
        assert_eq!(moe.residual, Some(MlpSpec::gated(64)));
        assert_eq!(moe.router, RouterSpec::softmax(true));
    }
}

#[test]
fn every_second_layer() {
    let spec = Checkpoint::open(&parity("arctic_freq2")).expect("opens").spec().clone();
    for (l, layer) in spec.layers.iter().enumerate() {
        match &layer.feed_forward {
            FeedForward::Dense(mlp) => assert_eq!((l % 2, mlp.inner), (0, 48)),
            FeedForward::Moe(moe) => assert_eq!((l % 2, moe.experts), (1, 8)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn arctic_without_the_parallel_block() {
    let model = Model::copy_of("arctic");
    model.edit_text("config.json", |t| t.replace("_res\": true", "_res\": false"));
    model.edit_tensors("model.safetensors", |tensors| {
        tensors.retain(|t| !t.name.contains("residual"));
    });
    let spec = model.open().expect("opens").spec().clone();
    let moe = spec.layers[0].moe().expect("has experts");
    assert_eq!((moe.input, moe.residual), (MoeInput::AfterAttention, None));
}

#[test]
fn both_dialects_of_the_config_say_the_same() {
    let model = Model::copy_of("mixtral");
    let hub = std::fs::read(parity("mixtral").join("config.hub.json")).expect("reads");
    let new = model.open().expect("opens");
    std::fs::write(model.path("config.json"), hub).expect("writes");
    let old = model.open().expect("opens");
    assert_eq!(new.spec(), old.spec());
    for checkpoint in [new, old] {
        let dtype = checkpoint.declared_dtype();
        assert_eq!(dtype, Some("bfloat16"));
    }
}

#[test]
fn one_expert_a_token() {
    let renormalize = |name: &str| {
        let model = Model::copy_of(name);
        model.edit_text("config.json", |t| t.replace("per_tok\": 2", "per_tok\": 1"));
        model.open().expect("opens").spec().layers[0].moe().expect("has experts").router.clone()
    };
    assert_eq!(renormalize("arctic"), RouterSpec::softmax(false));
    assert_eq!(renormalize("mixtral"), RouterSpec::softmax(true));
}

#[test]
fn counts_by_layer() {
    for list in ["[8, 8, 8]", "[8,\n 8, 8]"] {
        let model = Model::copy_of("arctic");
        model
            .edit_text("config.json", |t| t.replace("experts\": 8", &format!("experts\": {list}")));
        model.open().expect("opens");
    }
    for list in ["[0, 8, 0, 8]", "[8, 8, 8, 8]", "[8, 8]"] {
        let model = Model::copy_of("arctic_freq2");
        model
            .edit_text("config.json", |t| t.replace("experts\": 8", &format!("experts\": {list}")));
        model.open().expect("opens");
    }
}

#[test]
fn the_head_may_be_the_embedding() {
    let model = Model::copy_of("mixtral");
    model.edit_text("config.json", |t| t.replace("embeddings\": false", "embeddings\": true"));
    let stored = model.open().expect("opens");
    assert!(!stored.spec().tied_embeddings, "a head that is stored is the head");
    model.edit_tensors("model.safetensors", |t| t.retain(|t| t.name != "lm_head.weight"));
    let checkpoint = model.open().expect("opens");
    assert!(checkpoint.spec().tied_embeddings);
    let error = moeprune_core::TensorSource::tensor(&checkpoint, TensorId::LmHead);
    let message = error.expect_err("is not stored").to_string();
    assert!(message.contains("no head: there is no `lm_head.weight`"), "{message}");
}

/// A family as a user would write it, by other names for everything.
#[test]
fn a_family_of_ones_own() {
    let text = MIXTRAL
        .replace("name = \"mixtral\"", "name = \"mine\"")
        .replace("block_sparse_moe", "moe")
        .replace("{prefix}layers.{layer}", "decoder.{layer}")
        .replace(
            "renormalize = \"always\"",
            "renormalize = { config = { keys = [\"norm_topk_prob\"], default = false } }",
        )
        .replace("[\"num_local_experts\", \"num_experts\"]", "[\"text.n_experts\"]");
    let family = Family::from_toml(&text).expect("parses");
    let model = Model::copy_of("mixtral");
    model.edit_tensors("model.safetensors", |tensors| {
        for tensor in tensors {
            tensor.name =
                tensor.name.replace("model.layers.", "decoder.").replace("block_sparse_moe", "moe");
        }
    });
    model.edit_text("config.json", |t| {
        t.replace("\"num_local_experts\": 8", "\"text\": {\"n_experts\": 8}")
            .replace("\"mixtral\"", "\"anything\"")
    });
    let checkpoint = Checkpoint::open_with(&model.dir, Some(family)).expect("opens");
    assert_eq!(checkpoint.spec().family, "mine");
    let moe = checkpoint.spec().layers[0].moe().expect("has experts");
    assert_eq!(moe.router, RouterSpec::softmax(false));
    let router = TensorId::Layer(1, LayerTensor::Linear(LinearId::Router));
    assert_eq!(checkpoint.name_of(router).expect("named"), "decoder.1.moe.gate.weight");
    let config = checkpoint.config_with_experts(&[4; 3]).expect("rewrites");
    assert!(config.contains("\"text\": {\"n_experts\": 4}"));
}

#[track_caller]
fn check_descriptor(from: &str, to: &str, expected: &[&str]) {
    assert!(ARCTIC.contains(from));
    let result = Family::from_toml(&ARCTIC.replacen(from, to, 1));
    assert!(matches!(result, Err(Error::Descriptor { .. })));
    check_refused(result, expected);
}

#[test]
fn descriptors_that_are_refused() {
    check_descriptor("[dense]", "[dense", &["family descriptor"]);
    check_descriptor("[dense]", "[dens]", &["unknown field `dens`"]);
    check_descriptor("input =", "inptu =", &["unknown field `inptu`"]);
    check_descriptor("heads =", "haeds =", &["unknown field `haeds`"]);
    check_descriptor("top_k =", "k =", &["unknown field `k`"]);
    check_descriptor("{ keys = [\"hidden_size\"] }", "{ key = [] }", &["unknown field `key`"]);
    check_descriptor("weight = \"block", "#", &["missing field `weight`"]);
    check_descriptor("query = \"", "#", &["missing field `query`"]);
    check_descriptor("gate.weight", "{gate}.weight", &["`{gate}`; only {layer} and {expert}"]);
    check_descriptor("{expert}.w1", "0.w1", &["must have {expert} once, has it 0x"]);
    check_descriptor("layers.{layer}.", "layers.", &["must have {layer} once"]);
    check_descriptor("lm_head.weight", "lm_head.{layer}", &["must have {layer} not, has it 1x"]);
    check_descriptor(
        "lm_head.weight",
        "model.norm.weight",
        &["`model.norm.weight` is given twice"],
    );
    check_descriptor("model_types = [\"arctic\"]", "model_types = []", &["`model_types` is empty"]);
    check_descriptor("[\"num_local_experts\"]", "[]", &["`experts.count` has no keys"]);
    check_descriptor(
        "[\"num_local_experts\"] }",
        "[\"num_local_experts\"], default = 8 }",
        &["`experts.count` cannot have a default"],
    );
    check_descriptor("norm = \"residual_layernorm.weight\"\n", "", &["missing field `norm`"]);
    check_descriptor(
        "w3.weight\"\n",
        "w3.weight\"\nup_bias = \"e.{expert}.w3.bias\"\n",
        &["`[experts.tensors]` must name a bias for each of its matrices or for none"],
    );
    let (before, after) = ARCTIC.split_once("[dense]").expect("has one");
    let rest = &after[after.find("[[").expect("has requirements")..];
    check_refused(
        Family::from_toml(&format!("{before}{rest}")),
        &["`layers.every` makes layers without experts, so `[dense]` is needed"],
    );
    check_descriptor("kind = \"softmax\"", "kind = \"sparsemixer\"", &["sparsemixer"]);
    check_descriptor("kind = \"grouped\"", "kind = \"linear\"", &["linear"]);
}

#[test]
fn parts_without_a_name() {
    let checkpoint = Checkpoint::open(&parity("mixtral")).expect("opens");
    let residual = TensorId::Layer(0, LayerTensor::ResidualNorm);
    check_refused(
        checkpoint.name_of(residual),
        &["no layer 0 residual norm", "the family `mixtral` has no name for it"],
    );
}
