//! What is refused, and what is said then.

use std::{fs, path::Path};

use moeprune::{
    Recipe, check_is_run, checkpoint::Checkpoint, core::Sparsity, whole_experts_by_default,
};

use crate::{
    builder::{Builder, Q8_0},
    cut::keep,
};

#[track_caller]
fn check_open(change: impl Fn(&mut Builder), expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    let mut model = Builder::mixture(1, 4);
    change(&mut model);
    model.write(&path);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("model.gguf"), "{error}");
}

fn nothing(_: &mut Builder) {}

#[test]
fn what_is_opened() {
    check_open(
        |model| {
            model.number_in_place("llama.expert_count", 5);
        },
        "says 5 experts, the router has 4 rows, and there are tensors of 4 experts",
    );
    check_open(
        |model| {
            model.number_in_place("llama.expert_count", 0);
        },
        "nothing to prune",
    );
    check_open(
        |model| {
            model.number_in_place("llama.expert_used_count", 9);
        },
        "is 9, but layer 0 has 4 experts",
    );
    check_open(
        |model| {
            model.without("blk.0.ffn_down_exps.weight");
        },
        "`blk.0.ffn_down_exps.weight` is missing",
    );
    check_open(
        |model| {
            model.blocks("blk.0.ffn_up_exps.weight", &[32, 64, 3], Q8_0, (32, 34));
        },
        "is [3, 64, 32] in model.gguf, but its metadata asks for [4, 64, 32]",
    );
    check_open(
        |model| {
            model.values("blk.0.ffn_gate_tid2eid.weight", &[4, 16]);
        },
        "belongs to experts in a way that is not known",
    );
    check_open(
        |model| {
            model.values("blk.0.exp_probs_b.bias", &[3]);
        },
        "blk.0.exp_probs_b.bias",
    );
    for count in [0, 3, u32::MAX] {
        check_open(
            |model| {
                model.number_in_place("llama.block_count", count);
            },
            "there are tensors of 1 layers",
        );
    }
    check_open(
        |model| {
            model.layer(1, 4).without("blk.1.ffn_gate_inp.weight");
            model.number_in_place("llama.block_count", 2);
        },
        "and no `blk.1.ffn_gate_inp.weight`",
    );
    // Blocks of two sizes in one type: the file ends early.
    check_open(
        |model| {
            model.blocks("blk.0.ffn_up_exps.weight", &[32, 64, 4], 99, (32, 24)).blocks(
                "blk.0.ffn_down_exps.weight",
                &[64, 32, 4],
                99,
                (32, 20),
            );
        },
        "is of type 99, which is not known",
    );
    check_open(
        |model| {
            model.without("token_embd.weight");
        },
        "`token_embd.weight` is missing",
    );
}

#[track_caller]
fn check_cut(change: impl Fn(&mut Builder), out: &str, kept: &[(usize, &[usize])], expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    let mut model = Builder::mixture(2, 8);
    change(&mut model);
    model.write(&path);
    fs::write(scratch.path().join("taken.gguf.report.json"), "mine").unwrap();
    let error = keep(&path, &scratch.path().join(out), kept).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!scratch.path().join(out).exists());
}

#[test]
fn what_is_cut() {
    let (four, six): (&[usize], &[usize]) = (&[0, 1, 4, 5], &[0, 1, 2, 4, 5, 6]);
    check_cut(
        nothing,
        "out",
        &[(0, four), (1, four)],
        "must end in .gguf, as the model is one file",
    );
    check_cut(nothing, "out.gguf", &[(0, four), (1, six)], "one number of experts for all layers");
    check_cut(nothing, "out.gguf", &[(0, &[0]), (1, &[0])], "every token is routed to 2");
    check_cut(nothing, "taken.gguf", &[(0, four), (1, four)], "taken.gguf.report.json");
    let grouped = |model: &mut Builder| {
        model.number("llama.expert_group_count", 4).number("llama.expert_group_used_count", 2);
    };
    check_cut(grouped, "out.gguf", &[(0, six), (1, six)], "groups");
}

fn open_mixture(folder: &Path) -> Checkpoint {
    let path = folder.join("model.gguf");
    Builder::mixture(1, 4).write(&path);
    Checkpoint::open(&path).unwrap()
}

#[test]
fn what_is_run() {
    let scratch = tempfile::tempdir().unwrap();
    let model = open_mixture(scratch.path());
    let check = |verb: &str, expected: &str| {
        let error = check_is_run(&model, verb).unwrap_err().to_string();
        assert!(error.contains("model.gguf is GGUF") && error.contains(expected), "{error}");
    };
    check("observe", "moeprune observe MODEL --imatrix FILE");
    check("eval", "the engine that it is for");
    check("compare", "the safetensors model");
}

/// A total without a share of the experts means whole experts of such a model; zeros are refused.
#[test]
fn what_recipes_ask_for() {
    let scratch = tempfile::tempdir().unwrap();
    let model = open_mixture(scratch.path());
    let check = |shares: (f64, f64), said: (bool, bool), expected: Result<f64, &str>| {
        let mut recipe = Recipe::arctic();
        recipe.sparsity = Sparsity::new(shares.0).unwrap();
        recipe.experts.sparsity = Sparsity::new(shares.1).unwrap();
        match (whole_experts_by_default(&mut recipe, &model, said), expected) {
            (Ok(_), Ok(share)) => {
                let got = (recipe.sparsity.value(), recipe.experts.sparsity.value());
                assert_eq!(got, (share, share));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    };
    check((0.4, 0.2), (false, false), Ok(0.2));
    check((0.5, 0.2), (true, false), Ok(0.5));
    check((0.4, 0.25), (false, true), Ok(0.25));
    check((0.25, 0.25), (true, true), Ok(0.25));
    check((0.4, 0.25), (true, true), Err("zeroing weights is for safetensors"));
}
