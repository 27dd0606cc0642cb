//! Verification finds what is wrong, and only that.

use std::fs;

use moeprune_checkpoint::{Checkpoint, verify};
use serde_json::{Value, json};

use crate::{
    fixture::{Model, PARITY, parity},
    pruned::{as_it_is, averaged, check_fails, check_passes, prune, unstructured, zeroed},
};

#[test]
fn pruned_models_pass_with_and_without_their_plan() {
    for name in PARITY {
        let p = prune(name, |_| (), as_it_is);
        let with = verify(&p.out, &p.source, Some(&p.plan)).expect("verifies");
        check_passes(&with);
        assert_eq!(with.checks.len(), 14);
        check_passes(&verify(&p.out, &p.source, None).expect("verifies"));
        let sparsity = with.sparsity.expect("counted");
        assert!((sparsity.experts - 3.0 / 8.0).abs() < 1e-12);
        assert!(with.linears.iter().all(|l| l.zeros == 0));
    }
}

#[test]
fn the_report_can_be_kept() {
    let p = prune("mixtral", |_| (), as_it_is);
    let mut report = verify(&p.out, &p.source, Some(&p.plan)).expect("verifies");
    report.linears.truncate(2);
    insta::assert_json_snapshot!(report);
}

#[test]
fn zeroed_weights_are_counted_and_allowed_if_planned() {
    for name in ["arctic", "mixtral_sharded"] {
        let p = prune(name, |_| (), zeroed);
        let without = verify(&p.out, &p.source, None).expect("verifies");
        check_passes(&without);
        let sparsity = without.sparsity.expect("counted");
        let mut plan = p.plan.clone();
        plan.unstructured = unstructured(sparsity.linears);
        check_passes(&verify(&p.out, &p.source, Some(&plan)).expect("verifies"));
        let zeros: u64 = without.linears.iter().map(|l| l.zeros).sum();
        let weights: u64 = without.linears.iter().map(|l| l.weights).sum();
        assert!((zeros as f64 / weights as f64 - 1.0 / 3.0).abs() < 0.02);

        plan.unstructured = unstructured(sparsity.linears + 0.1);
        check_fails(
            &verify(&p.out, &p.source, Some(&plan)).expect("verifies"),
            &[("sparsity", "of the decoder Linears was asked for")],
        );
        check_fails(
            &verify(&p.out, &p.source, Some(&p.plan)).expect("verifies"),
            &[
                ("experts", "differs from the source at"),
                ("attention and dense MLPs", "row 0, column 0"),
            ],
        );
    }
}

#[test]
fn totals_that_a_recipe_does_not_promise() {
    let p = prune("mixtral", |_| (), zeroed);
    let check = |weights: Value, expected: Option<&str>| {
        let mut plan = p.plan.clone();
        plan.unstructured = unstructured(0.99);
        plan.recipe = json!({ "weights": weights });
        let report = verify(&p.out, &p.source, Some(&plan)).expect("verifies");
        match expected {
            None => check_fails(&report, &[("sparsity", "but 0.99")]),
            Some(expected) => {
                check_passes(&report);
                let detail = &report.checks.last().expect("the last").detail;
                assert!(detail.contains(expected), "no `{expected}` in: {detail}");
            }
        }
    };
    let owl = |mean: &str| json!({"allocation": {"name": "owl", "mean": mean}});
    check(json!({}), None);
    check(json!({"ratio": 0.5}), Some("`weights.ratio`"));
    check(json!({"ratio": null}), None);
    check(owl("exact"), None);
    check(owl("reference"), Some("`weights.allocation.mean`"));
    check(json!({"allocation": "uniform"}), None);
    check(json!({"idle_experts": "dense"}), Some("`weights.idle_experts`"));
    check(json!({"idle_experts": "magnitude"}), None);
}

#[test]
fn a_total_may_be_missed_by_what_rounding_takes() {
    let p = prune("mixtral", |_| (), zeroed);
    let counted = |weights: &Value, total: f64| {
        let mut plan = p.plan.clone();
        plan.unstructured = unstructured(total);
        plan.recipe = json!({ "weights": weights });
        verify(&p.out, &p.source, Some(&plan)).expect("verifies")
    };
    let (exact, floor) = (json!({"rounding": "exact"}), json!({"rounding": "floor"}));
    let of = |weights| counted(weights, 0.5).sparsity.expect("counted");
    let (by_matrix, by_row) = (of(&exact).rounding, of(&floor).rounding);
    assert!(by_matrix < 0.001 && by_row > 0.005, "{by_matrix} {by_row}");
    let got = of(&exact).linears;
    for (weights, rounding) in [(&exact, by_matrix), (&floor, by_row), (&json!({}), by_matrix)] {
        for sign in [1.0, -1.0] {
            check_passes(&counted(weights, got + sign * (0.00049 + rounding)));
            let missed = counted(weights, got + sign * (0.00051 + rounding));
            check_fails(&missed, &[("sparsity", "of the decoder Linears was asked for")]);
        }
    }
}

#[test]
fn averages_are_computed_again() {
    let p = prune("arctic", averaged, as_it_is);
    check_passes(&verify(&p.out, &p.source, Some(&p.plan)).expect("verifies"));
    let unknown = verify(&p.out, &p.source, None).expect("verifies");
    let names: Vec<_> = unknown.failures().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["survivors", "routers", "experts"]);
    assert!(unknown.failures().next().expect("one").detail.contains("give the plan"));
}

/// Prunes a Mixtral, damages one tensor of the output, and verifies.
#[track_caller]
fn check_damage(tensor: &str, bytes: [u8; 2], planned: bool, expected: &[(&str, &str)]) {
    let p = prune("mixtral", |_| (), as_it_is);
    let out = Model { dir: p.out.clone(), root: tempfile::tempdir().expect("unused") };
    out.edit_tensors("model.safetensors", |tensors| {
        let tensor = tensors.iter_mut().find(|t| t.name == tensor).expect("is there");
        tensor.bytes[10..12].copy_from_slice(&bytes);
    });
    let plan = planned.then_some(&p.plan);
    check_fails(&verify(&p.out, &p.source, plan).expect("verifies"), expected);
    drop(p.model);
}

#[test]
fn single_weights_that_are_wrong() {
    let expert = "model.layers.1.block_sparse_moe.experts.4.w3.weight";
    let one = [0x80, 0x3f];
    for planned in [true, false] {
        check_damage(expert, one, planned, &[("experts", "experts.4.w3.weight` differs from")]);
    }
    check_damage(expert, [0, 0], true, &[("experts", "at row 0, column 5")]);
    check_damage("model.norm.weight", one, false, &[("embeddings, norms, head", "at index 5")]);
    check_damage(
        "model.embed_tokens.weight",
        [0, 0],
        false,
        &[("embeddings, norms, head", "1 of")],
    );
    check_damage(
        "model.layers.2.block_sparse_moe.gate.weight",
        [0, 0],
        true,
        &[("routers", "model.layers.2.block_sparse_moe.gate.weight")],
    );
    check_damage(
        "model.layers.0.self_attn.v_proj.weight",
        [0x80, 0x7f],
        false,
        &[
            ("attention and dense MLPs", "and is not zero"),
            ("finite", "holds inf at row 0, column 5"),
        ],
    );
}

#[test]
fn experts_in_the_wrong_place() {
    let p = prune("mixtral", |_| (), as_it_is);
    let mut plan = p.plan.clone();
    plan.layers[0].survivors[2].source = 4;
    check_fails(
        &verify(&p.out, &p.source, Some(&plan)).expect("verifies"),
        &[("routers", "layers.0"), ("experts", "3 of 45 tensors are wrong")],
    );
    plan.layers[0].survivors.pop();
    let report = verify(&p.out, &p.source, Some(&plan)).expect("verifies");
    assert!(
        report.failures().any(|c| c.detail.contains("layer 0: it has 5 experts, the plan keeps 4"))
    );
    plan.layers[0].survivors[0].source = 99;
    let report = verify(&p.out, &p.source, Some(&plan)).expect("verifies");
    assert_eq!(report.failures().next().expect("one").name, "plan");
}

#[test]
fn plans_for_other_models() {
    let p = prune("mixtral", |_| (), as_it_is);
    let mut plan = p.plan.clone();
    plan.model_fingerprint = "sha256:0".into();
    check_fails(
        &verify(&p.out, &p.source, Some(&plan)).expect("verifies"),
        &[("plan", "was made for the model sha256:0, but the source is sha256:")],
    );
}

#[test]
fn files_around_the_weights() {
    let check = |damage: &dyn Fn(&Model), expected: &[(&str, &str)]| {
        let p = prune("mixtral_sharded", |_| (), as_it_is);
        let out = Model { dir: p.out.clone(), root: tempfile::tempdir().expect("unused") };
        damage(&out);
        check_fails(&verify(&p.out, &p.source, Some(&p.plan)).expect("verifies"), expected);
    };
    check(
        &|out| {
            out.edit_text("config.json", |t| {
                t.replace("\"use_cache\": true", "\"use_cache\": false")
            })
        },
        &[("config.json", "in more than the expert count (line 33)")],
    );
    check(
        &|out| {
            out.edit_text("config.json", |t| {
                t.replace("\"num_local_experts\": 5", "\"num_local_experts\": 6")
            })
        },
        &[("opens", "says 6 experts, the router has 5 rows")],
    );
    check(
        &|out| out.edit_text("config.json", |t| t.replace("1e-05", "1e-06")),
        &[("architecture", "differ in more than the number of experts")],
    );
    check(
        &|out| {
            out.edit_text("model.safetensors.index.json", |t| {
                t.replace("\"total_size\": ", "\"total_size\": 1")
            });
        },
        &[("index", "the tensors take")],
    );
    check(
        &|out| fs::remove_file(out.path("tokenizer.json")).expect("removes"),
        &[("auxiliary files", "tokenizer.json")],
    );
    check(
        &|out| fs::write(out.path("generation_config.json"), "").expect("writes"),
        &[("auxiliary files", "generation_config.json differs")],
    );
    check(
        &|out| fs::remove_file(out.path("model-00001-of-00003.safetensors")).expect("removes"),
        &[("opens", "is missing")],
    );
}

#[test]
fn another_model_altogether() {
    let source = Checkpoint::open(&parity("mixtral")).expect("opens");
    let report = verify(&parity("arctic"), &source, None).expect("verifies");
    assert_eq!(report.failures().next().expect("one").name, "opens");
    let source = Checkpoint::open(&parity("arctic")).expect("opens");
    let report = verify(&parity("arctic_freq2"), &source, None).expect("verifies");
    check_fails(&report, &[("architecture", "differ")]);
}
