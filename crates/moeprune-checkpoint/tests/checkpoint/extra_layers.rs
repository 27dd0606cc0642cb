//! Layers behind the decoder's that have names of their own.

use moeprune_checkpoint::{Checkpoint, Family};
use moeprune_core::{AttentionSpec, LinearId, MlpProjection, TensorId};

use crate::fixture::{Model, RawTensor, check_refused};

const QWEN3_NEXT: &str = include_str!("../../families/qwen3_next.toml");
const MIXTRAL: &str = include_str!("../../families/mixtral.toml");

/// Qwen3-Next with several copies of its layer behind the decoder's.
fn model(layers: usize) -> Model {
    let model = Model::copy_of("qwen3_next");
    model.edit_tensors("model.safetensors", |tensors| {
        let first = |tensor: &RawTensor| {
            let rest = tensor.name.strip_prefix("mtp.layers.0.")?;
            Some((rest.to_owned(), tensor.clone()))
        };
        let first: Vec<(String, RawTensor)> = tensors.iter().filter_map(first).collect();
        for layer in 1..layers {
            let named = |(rest, tensor): &(String, RawTensor)| {
                let name = format!("mtp.layers.{layer}.{rest}");
                RawTensor { name, ..tensor.clone() }
            };
            tensors.extend(first.iter().map(named));
        }
    });
    model
}

#[test]
fn names_go_to_their_parts_and_back() {
    let model = model(2);
    let checkpoint = model.open().expect("opens");
    let up = TensorId::linear(5, LinearId::Expert(7, MlpProjection::Up));
    let name = "mtp.layers.1.mlp.experts.7.up_proj.weight";
    assert_eq!(checkpoint.name_of(up).expect("has one"), name);
    let stored = checkpoint.tensors().find(|tensor| tensor.name == name).expect("is stored");
    assert_eq!((stored.part, stored.layer()), (Some(up), Some(5)));
    let beside = checkpoint.tensors().filter(|tensor| checkpoint.is_extra(tensor));
    let beside: Vec<&str> =
        beside.filter(|tensor| tensor.part.is_none()).map(|tensor| &*tensor.name).collect();
    let names = ["mtp.fc", "mtp.norm", "mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden"];
    assert_eq!(beside, names.map(|name| format!("{name}.weight")));
}

/// For any kind of the decoder's last layer, those behind it have the kind that the descriptor names.
#[test]
fn their_attention_is_of_one_kind() {
    let model = model(1);
    model.edit_tensors("model.safetensors", |tensors| {
        for tensor in tensors {
            let name = tensor.name.replacen("model.layers.3.", "model.layers.0x.", 1);
            let name = name.replacen("model.layers.0.", "model.layers.3.", 1);
            tensor.name = name.replacen("model.layers.0x.", "model.layers.0.", 1);
        }
    });
    model.edit_text("config.json", |text| {
        let text = text.replace("\"full_attention\"", "\"x\"");
        text.replacen("\"linear_attention\"", "\"full_attention\"", 1)
            .replace("\"x\"", "\"linear_attention\"")
    });
    let spec = model.open().expect("opens").spec().clone();
    assert!(matches!(spec.layers[3].attention, AttentionSpec::GatedDelta(_)));
    assert_eq!(spec.layer(4).expect("is there").attention, spec.layers[0].attention);
}

/// A config may count modules, each of several layers, of which a pattern has a letter for each.
#[test]
fn what_a_config_counts() {
    let key = "sequence = { keys = [\"pattern\"] }\nattention = \"full_attention\"";
    let text =
        QWEN3_NEXT.replacen("attention = \"full_attention\"\npolicy", &format!("{key}\npolicy"), 1);
    let check = |layers: usize, keys: &str, expected: Option<&str>| {
        let model = model(layers);
        model.edit_text("config.json", |text| text.replacen('{', &format!("{{{keys}\n"), 1));
        let family = Family::from_toml(&text).expect("parses");
        let opened = Checkpoint::open_with(&model.dir, Some(family));
        match expected {
            None => assert_eq!(opened.expect("opens").spec().extra_layers(), 4..4 + layers),
            Some(expected) => check_refused(opened, &[expected]),
        }
    };
    check(2, "\"pattern\": \"*E\",", None);
    check(2, "\"num_nextn_predict_layers\": 1, \"pattern\": \"*E\",", None);
    check(2, "\"num_nextn_predict_layers\": 1, \"pattern\": [\"attention\", \"moe\"],", None);
    check(2, "\"num_nextn_predict_layers\": 2,", None);
    check(2, "\"num_nextn_predict_layers\": 0,", None);
    let one = "says 1 layers behind the decoder's 4, but there are tensors of layers 0, 1; they";
    check(2, "\"num_nextn_predict_layers\": 1,", Some(one));
    let two = "says 2 layers behind the decoder's 4, but there are tensors of layers 0; they";
    check(1, "\"num_nextn_predict_layers\": 1, \"pattern\": \"*E\",", Some(two));
    check(
        1,
        "\"num_nextn_predict_layers\": 1, \"pattern\": 2,",
        Some("`pattern` must be a string"),
    );
}

/// Layers that no key counts are known by their parts; what is no whole layer plays no part.
#[test]
fn layers_that_no_key_counts() {
    let check = |goes: &str, expected: usize| {
        let model = Model::copy_of("glm4_moe_lite");
        model.edit_tensors("model.safetensors", |tensors| {
            tensors.retain(|tensor| goes.is_empty() || !tensor.name.starts_with(goes));
        });
        let checkpoint = model.open().expect("opens");
        assert_eq!(checkpoint.spec().extra_layers().len(), expected, "{goes}");
        assert!(checkpoint.spec().extra.as_ref().expect("some are stored").is_stored);
        assert!(checkpoint.tensors().any(|tensor| checkpoint.is_extra(tensor)), "{goes}");
    };
    check("", 1);
    check("model.layers.3.mlp.", 0);
    check("model.layers.3.input_layernorm.", 0);
    check("model.layers.3.mlp.gate.", 0);
}

/// A file of weights beside the model's of which no index speaks.
#[test]
fn files_that_no_index_names() {
    let model = Model::copy_of("qwen3_next");
    let of_mtp = |tensor: &RawTensor| tensor.name.starts_with("mtp.");
    std::fs::copy(model.dir.join("model.safetensors"), model.dir.join("mtp.safetensors"))
        .expect("is copied");
    let unnamed = |model: &Model| model.open().expect("opens").unnamed_extra();
    assert_eq!(unnamed(&model), []);
    model.edit_tensors("model.safetensors", |tensors| tensors.retain(|t| !of_mtp(t)));
    assert_eq!(unnamed(&model), [("mtp.safetensors".to_owned(), 41)]);
    model.edit_tensors("mtp.safetensors", |tensors| tensors.retain(|t| !of_mtp(t)));
    assert_eq!(unnamed(&model), []);
    std::fs::write(model.dir.join("mtp.safetensors"), "damaged").expect("is written");
    assert_eq!(unnamed(&model), []);
}

#[test]
fn forms_that_are_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(QWEN3_NEXT.contains(from));
        check_refused(Family::from_toml(&QWEN3_NEXT.replacen(from, to, 1)), &[expected]);
    };
    check("mtp.layers.{layer}.", "mtp.layers.", "must have {layer} once, has it 0x");
    let kind = "`extra.attention` is `none`, but there is no `attention.kinds.none`";
    check("attention = \"full_attention\"\npolicy", "attention = \"none\"\npolicy", kind);
    let extra = "[extra]\npolicy = \"prune\"\n";
    check_refused(
        Family::from_toml(&format!("{MIXTRAL}\n{extra}")),
        &["`extra` needs a `prefix`, or keys for `count`"],
    );
    check_refused(
        Family::from_toml(&format!(
            "{MIXTRAL}\n{extra}prefix = \"a.{{layer}}.\"\nattention = \"b\""
        )),
        &["there is no `attention.kinds.b`"],
    );
}

/// What a descriptor that extends another does not give is the other's.
#[test]
fn descriptors_that_extend_others() {
    let text = "extends = \"mixtral\"\nname = \"mine\"\nmodel_types = [\"mine\"]\n\
                [layers]\nprefix = \"decoder.{layer}.\"\n[experts.count]\nkeys = [\"n\"]\n";
    let family = Family::from_toml(text).expect("parses");
    assert_eq!((family.name(), family.model_types()), ("mine", &["mine".to_owned()][..]));
    let router = TensorId::linear(2, LinearId::Router);
    assert_eq!(family.name_of(router).as_deref(), Some("decoder.2.block_sparse_moe.gate.weight"));
    assert_eq!(family.name_of(TensorId::Embedding).as_deref(), Some("model.embed_tokens.weight"));
    let model = Model::copy_of("mixtral");
    model.edit_tensors("model.safetensors", |tensors| {
        for tensor in tensors {
            tensor.name = tensor.name.replace("model.layers.", "decoder.");
        }
    });
    model.edit_text("config.json", |text| text.replace("num_local_experts", "n"));
    let opened = Checkpoint::open_with(&model.dir, Some(family)).expect("opens");
    assert_eq!(opened.spec().family, "mine");

    let check = |from: &str, to: &str, expected: &str| {
        check_refused(Family::from_toml(&text.replace(from, to)), &[expected]);
    };
    check("\"mixtral\"", "\"mixtral2\"", "`extends` is \"mixtral2\"; name a built-in descriptor");
    check("\"mixtral\"", "\"qwen3_5_moe_text\"", "one that extends none itself");
    check("\"mixtral\"", "3", "`extends` is 3");
    check("[layers]", "[layer]", "unknown field `layer`");
}
