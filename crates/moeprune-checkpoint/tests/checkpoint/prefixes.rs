//! Names that begin otherwise than those of the family.

use std::fs;

use moeprune_checkpoint::{Checkpoint, verify};
use moeprune_core::TensorSource as _;
use proptest::prelude::*;

use crate::{
    fixture::{Model, apply, check_refused, parity, plan_keeping},
    pruned::{as_it_is, check_passes},
};

const FILE: &str = "model.safetensors";

/// Renames all tensors of a model.
fn rename(model: &Model, new: impl Fn(&str) -> String) {
    model.edit_tensors(FILE, |tensors| {
        tensors.iter_mut().for_each(|tensor| tensor.name = new(&tensor.name));
    });
}

/// A parity model with `prefix` in place of the family's own in names of layers, and `around` before all others.
fn renamed(name: &str, own: &str, prefix: &str, around: &str) -> Model {
    let model = Model::copy_of(name);
    rename(&model, |name| match name.strip_prefix(own) {
        Some(rest) => format!("{prefix}{rest}"),
        None => format!("{around}{name}"),
    });
    model
}

/// Opens, prunes and verifies, and compares with the same of the model as it was.
fn check(name: &str, own: &str, prefix: &str, around: &str) {
    let model = renamed(name, own, prefix, around);
    let source = model.open().expect("opens");
    let plain = Checkpoint::open(&parity(name)).expect("opens");
    assert_eq!(source.spec().layers, plain.spec().layers);
    for part in plain.spec().parts() {
        let (a, b) =
            (source.tensor(part.id).expect("reads"), plain.tensor(part.id).expect("reads"));
        assert_eq!(a.bytes(), b.bytes(), "{}", part.id);
    }
    let is_note = |note: &str| note.contains("the names of tensors begin");
    assert_eq!(source.notes().filter(|note| is_note(note)).count(), usize::from(prefix != own));
    let separate = plain.tensors().any(|t| t.part.is_some_and(|part| part.expert().is_some()));
    if !separate || plain.spec().extra.is_some() {
        return; // whose cut takes more than the fixture has
    }
    let moe = plain.spec().layers.iter().find_map(|layer| layer.moe()).expect("has experts");
    let kept: Vec<usize> = (0..moe.experts).filter(|expert| expert % 4 != 1).collect();
    let out = model.root.path().join("out");
    apply(&source, &plan_keeping(&source, &kept), &out, as_it_is);
    check_passes(&verify(&out, &source, Some(&plan_keeping(&source, &kept))).expect("verifies"));
    let pruned = Checkpoint::open(&out).expect("opens");
    let expected = model.root.path().join("expected");
    apply(&plain, &plan_keeping(&plain, &kept), &expected, as_it_is);
    let expected = Checkpoint::open(&expected).expect("opens");
    for part in expected.spec().parts() {
        let (a, b) = (pruned.tensor(part.id), expected.tensor(part.id));
        assert_eq!(a.expect("reads").bytes(), b.expect("reads").bytes(), "{}", part.id);
    }
    assert!(pruned.tensors().all(|t| t.name.starts_with(prefix) || t.name.starts_with(around)));
}

#[test]
fn what_wrappers_put_in_front() {
    for around in ["base_model.model.", "module.", "_orig_mod.", "language_model.", "model."] {
        check("mixtral", "model.", &format!("{around}model."), around);
    }
    check("mixtral", "model.", "module._orig_mod.model.", "module._orig_mod.");
}

#[test]
fn what_conversions_make_of_the_prefix() {
    check("mixtral", "model.", "", "");
    check("mixtral", "model.", "transformer.", "");
    check("mixtral", "model.", "model.model.", "");
    check("mixtral", "model.", "model.language_model.", "");
    check("mixtral", "model.", "model._orig_mod.", "");
    check("mixtral_fused", "model.", "module.model.", "module.");
    check("gpt_oss", "model.", "", "");
    check("qwen3_5_moe", "model.language_model.", "module.model.language_model.", "module.");
    check("nemotron_h", "backbone.", "module.backbone.", "module.");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_beginning_that_all_names_share(
        around in prop::collection::vec("[a-z_]{1,6}", 0..3),
        prefix in prop::collection::vec("[a-z_]{1,6}", 0..3),
    ) {
        let dotted = |parts: &[String]| parts.iter().map(|part| format!("{part}.")).collect::<String>();
        let around = dotted(&around);
        check("mixtral", "model.", &format!("{around}{}", dotted(&prefix)), &around);
    }
}

#[test]
fn mixed_beginnings() {
    let model = Model::copy_of("mixtral");
    rename(&model, |name| match name.contains(".layers.1.") {
        true => format!("module.{name}"),
        false => name.to_owned(),
    });
    check_refused(
        model.open(),
        &[
            "none of layer 1",
            "begin differently: `model.layers.0.block_sparse_moe.experts.0.w1.weight` and \
             `module.model.layers.1.block_sparse_moe.experts.0.w1.weight`",
        ],
    );
    let model = Model::copy_of("mixtral");
    rename(&model, |name| match name.contains(".layers.1.") {
        true => format!("a.{name}"),
        false => format!("b.{name}"),
    });
    check_refused(
        model.open(),
        &[
            "begin differently: `a.model.layers.1.block_sparse",
            "` and `b.model.layers.0.block_sparse",
        ],
    );
    let model = renamed("mixtral", "model.", "module.model.", "module.");
    model.edit_tensors(FILE, |tensors| {
        let head = tensors.iter().find(|t| t.name == "module.lm_head.weight").expect("is there");
        let mut again = head.clone();
        again.name = "lm_head.weight".to_owned();
        tensors.push(again);
    });
    check_refused(model.open(), &["both `lm_head.weight` and `module.lm_head.weight`"]);
}

#[test]
fn what_is_outside_of_layers_is_under_the_same() {
    for (name, other) in [
        ("model.norm.weight", "module.model.norm.weight"),
        ("model.embed_tokens.weight", "embed_tokens.weight"),
        ("lm_head.weight", "module.lm_head.weight"),
    ] {
        let model = Model::copy_of("mixtral");
        rename(&model, |own| if own == name { other.to_owned() } else { own.to_owned() });
        let there = format!("there is `{other}`");
        check_refused(model.open(), &[&format!("`{name}`"), "is missing", &there]);
    }
}

#[test]
fn names_of_nothing_that_is_known() {
    let model = Model::copy_of("mixtral");
    rename(&model, |name| name.replace("layers", "blocks"));
    check_refused(
        model.open(),
        &[
            "there is `model.blocks.0.input_layernorm.weight`",
            "`model.layers.0.input_layernorm.weight` was expected",
        ],
    );
}

#[test]
fn adapters_are_called_that() {
    let model = Model::copy_of("mixtral");
    fs::remove_file(model.path("config.json")).expect("removes");
    fs::remove_file(model.path(FILE)).expect("removes");
    fs::write(model.path("adapter_config.json"), "{}").expect("writes");
    fs::write(model.path("adapter_model.safetensors"), "?").expect("writes");
    check_refused(model.open(), &["is a PEFT adapter (adapter_config.json)", "merge_and_unload"]);
    fs::copy(parity("mixtral").join("config.json"), model.path("config.json")).expect("copies");
    check_refused(model.open(), &["is a PEFT adapter (adapter_config.json)", "merge_and_unload"]);

    let model = renamed("mixtral", "model.", "base_model.model.model.", "base_model.model.");
    model.edit_tensors(FILE, |tensors| {
        let query =
            tensors.iter_mut().find(|t| t.name.ends_with("q_proj.weight")).expect("is there");
        let name = query.name.clone();
        query.name = name.replace("q_proj.", "q_proj.base_layer.");
        let mut adapter = query.clone();
        adapter.name = name.replace("q_proj.", "q_proj.lora_A.default.");
        tensors.push(adapter);
    });
    check_refused(model.open(), &["a LoRA adapter's tensor", "`merge_and_unload`"]);
}
