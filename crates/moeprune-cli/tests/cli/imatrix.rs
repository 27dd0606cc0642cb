//! An observation from an imatrix, in place of running the model.

use std::{fs, path::Path};

use serde_json::Value;

use crate::command::Scratch;

/// A model, and what llama-imatrix collected on its GGUF.
fn scratch() -> Scratch {
    let scratch = Scratch::new("../gguf/mix32");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/imatrix");
    for name in ["im.gguf", "im.dat"] {
        fs::copy(folder.join(name), scratch.path(name)).unwrap();
    }
    scratch
}

#[test]
fn a_model_is_pruned_without_being_run() {
    let scratch = scratch();
    let says = scratch.ok("observe model --imatrix im.gguf -o model.obs").stdout;
    insta::assert_snapshot!(says, @r"
    8192 tokens of imatrix im.gguf of im.txt
    from an imatrix, without gate weights, outputs and pairs of experts → model.obs
    ");
    scratch.ok(
        "plan model --observation model.obs --criterion frequency --statistics stored -o plan.json",
    );
    let plan: Value =
        serde_json::from_slice(&fs::read(scratch.path("plan.json")).unwrap()).unwrap();
    assert_eq!(plan["corpora"][0]["name"], "imatrix im.gguf of im.txt");
    let hash = &plan["corpora"][0]["sha256"];
    assert_eq!(hash, "aa80d6af1b3dd513bfe87a097c5152a012a077ec152f4b922f06f53e1776c9d8");
    scratch.ok("apply model pruned --plan plan.json --observation model.obs");
    scratch.ok("verify pruned --source model --plan plan.json");
}

#[test]
fn several_add_up_and_are_named() {
    let scratch = scratch();
    let observe = "observe model --imatrix im.gguf --imatrix im.gguf --domain prose -o model.obs";
    let says = scratch.ok(observe).stdout;
    assert_eq!(says.matches("8192 tokens of imatrix im.gguf of prose\n").count(), 2, "{says}");
}

#[test]
fn what_is_refused() {
    let scratch = scratch();
    let check = |arguments: &str, code: i32, expected: &str| {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, code, "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{arguments}: {}", ran.stderr);
    };
    check("observe model -o model.obs", 2, "--calibration <FILE>");
    check("observe model --imatrix im.gguf --calibration tokens.jsonl -o o", 2, "cannot be used");
    check("observe model --imatrix im.gguf --samples 4 -o o", 2, "cannot be used");
    check("observe model --imatrix none.gguf -o o", 1, "cannot read none.gguf");
    check("observe model --imatrix tokens.jsonl -o o", 1, "imatrix tokens.jsonl: ");
    check("observe model --imatrix im.gguf -o im.gguf", 1, "it is an input of this run");
    scratch.ok("observe model --imatrix im.gguf -o model.obs");
    let plan = "plan model --observation model.obs --criterion reap -o plan.json";
    check(plan, 1, "no norms of the experts' outputs, as it was not made by running the model");
    scratch.ok("observe model --imatrix im.dat -o old.obs");
    let plan = "plan model --observation old.obs --criterion frequency -o plan.json";
    check(plan, 1, "an imatrix of the older form has none");
}

#[test]
fn an_imatrix_of_another_model_is_refused() {
    let scratch = Scratch::new("mixtral");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/imatrix");
    fs::copy(folder.join("im.gguf"), scratch.path("im.gguf")).unwrap();
    let ran = scratch.run("observe model --imatrix im.gguf -o model.obs");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    insta::assert_snapshot!(ran.stderr, @"error: imatrix im.gguf: tensor `blk.0.attn_q.weight`: expected 64 inputs (attention.query of layer 0), got 128 inputs; it is of another model: collect one on the GGUF of this model");
    assert!(!scratch.path("model.obs").exists());
}

#[test]
fn a_gguf_is_a_model_too() {
    let scratch = scratch();
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/mix32-MX.gguf");
    fs::copy(gguf, scratch.path("model.gguf")).unwrap();
    let plan = |model: &str| {
        scratch.ok(&format!("observe {model} --imatrix im.gguf -o {model}.obs"));
        let equal = "--criterion frequency --sparsity 0.25 --expert-sparsity 0.25";
        let given = format!("--observation {model}.obs -o {model}.json");
        scratch.ok(&format!("plan {model} {equal} {given}"));
        let plan = fs::read(scratch.path(&format!("{model}.json"))).unwrap();
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        plan["layers"].clone()
    };
    assert_eq!(plan("model.gguf"), plan("model"));
}
