//! Bad requests end before any work and leave nothing that looks finished.

use std::{fs, path::Path};

use moeprune::Recipe;

use crate::scratch::{asset, copy, damage, recipe, run, tokens};

/// Runs on `model`, expects an error that contains every one of `expected`, and nothing left.
fn check(model: &Path, out: &Path, recipe: &Recipe, expected: &[&str]) {
    let scratch = tempfile::tempdir().unwrap();
    let calibration = tokens(scratch.path(), 8, 64, 256);
    let existed = out.exists();
    let error = run(model, out, &calibration, recipe).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "`{part}` is not in `{error}`");
    }
    assert_eq!(out.exists(), existed, "something was left at {}", out.display());
    let parent = out.parent().unwrap();
    if let Ok(entries) = fs::read_dir(parent) {
        let left = entries
            .map(|e| e.unwrap().file_name())
            .find(|name| name.to_string_lossy().starts_with('.'));
        assert_eq!(left, None, "a hidden directory was left");
    }
}

#[test]
fn fewer_experts_than_a_token_needs() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let model = asset("parity/mixtral");
    check(&model, &out, &recipe(0.9, 0.9), &["routed to 2", "of at most 0.7500"]);
}

#[test]
fn an_output_that_exists() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("something"), "").unwrap();
    check(&asset("parity/mixtral"), &out, &recipe(0.5, 0.25), &["out", "exists"]);
}

#[test]
fn an_output_inside_the_model() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy("parity/mixtral", scratch.path());
    check(&model, &model.join("out"), &recipe(0.5, 0.25), &["inside"]);
}

#[test]
fn weights_that_are_not_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy("parity/mixtral", scratch.path());
    let name = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
    damage(&model, name, 0);
    let out = scratch.path().join("out");
    check(&model, &out, &recipe(0.5, 0.0), &[name]);
    check(&model, &out, &recipe(0.25, 0.25), &[name]);
}

#[test]
fn calibration_text_that_is_too_short() {
    let scratch = tempfile::tempdir().unwrap();
    let calibration = scratch.path().join("short.jsonl");
    fs::write(&calibration, "{\"tokens\":[1,2,3]}\n").unwrap();
    let out = scratch.path().join("out");
    let error = run(&asset("parity/mixtral"), &out, &calibration, &recipe(0.5, 0.25)).unwrap_err();
    assert!(error.to_string().contains("short"), "{error}");
    assert!(!out.exists());
}
