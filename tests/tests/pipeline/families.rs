//! Whole runs on a model of every family: experts go, weights of what is left are zeroed.

use moeprune::checkpoint::{Checkpoint, verify};
use moeprune_model::{Compute, LanguageModel};

use crate::scratch::{asset, recipe, run, tokens};

/// With `fewer` experts, the rest of the weights by Wanda.
fn check(name: &str, fewer: f64) {
    let scratch = tempfile::tempdir().unwrap();
    let model = asset(&format!("parity/{name}"));
    let source = Checkpoint::open(&model).unwrap();
    let text = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
    let out = scratch.path().join("out");
    let asked = recipe(0.5, fewer);
    run(&model, &out, &text, &asked).unwrap_or_else(|error| panic!("{name}: {error}"));
    let verified = verify(&out, &source, None).unwrap();
    assert!(verified.passed(), "{name}: {:?}", verified.failures().collect::<Vec<_>>());
    let after = Checkpoint::open(&out).unwrap();
    for (before, after) in source.spec().layers.iter().zip(&after.spec().layers) {
        let (Some(before), Some(after)) = (before.moe(), after.moe()) else { continue };
        assert!(after.experts < before.experts, "{name} has all its experts");
    }
    let model = LanguageModel::load(&after, after.spec(), &Compute::cpu()).unwrap();
    model.logits(&[(0..16).collect()]).unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn grouped_attention() {
    for name in ["qwen3_moe_mixed", "qwen2_moe_mixed", "olmoe_clip"] {
        check(name, 0.2);
    }
}

#[test]
fn sigmoid_routing() {
    for name in ["dots1", "minimax_m2", "glm4_moe"] {
        check(name, 0.2);
    }
}

#[test]
fn latent_attention() {
    for name in ["moonlight", "glm4_moe_lite"] {
        check(name, 0.2);
    }
    for name in ["deepseek_v2", "deepseek_v3"] {
        check(name, 0.34);
    }
}

#[test]
fn attention_that_keeps_a_state() {
    for name in ["qwen3_next", "qwen3_5_moe", "kimi_linear", "lfm2_moe"] {
        check(name, 0.25);
    }
}
