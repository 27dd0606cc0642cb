//! Verification finds what is wrong, and only that.

use std::{fs, path::PathBuf};

use moeprune_checkpoint::{Checkpoint, PlannedTensor, VerifyReport, verify};
use moeprune_core::{Plan, SurvivorReason, TensorBytes, UnstructuredPlan};
use serde_json::{Value, json};

use crate::fixture::{Model, PARITY, apply, parity, plan_keeping};

const KEPT: [usize; 5] = [0, 2, 3, 5, 7];

struct Pruned {
    source: Checkpoint,
    plan: Plan,
    out: PathBuf,
    model: Model,
}

/// Prunes a parity model by a plan, which may be changed first, and so may each tensor.
fn prune(
    name: &str,
    edit: impl FnOnce(&mut Plan),
    change: impl Fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static>,
) -> Pruned {
    let model = Model::copy_of(name);
    fs::write(model.path("tokenizer.json"), "{}").expect("writes");
    let source = model.open().expect("opens");
    let mut plan = plan_keeping(&source, &KEPT);
    edit(&mut plan);
    let out = model.root.path().join("out");
    apply(&source, &plan, &out, change);
    Pruned { source, plan, out, model }
}

fn as_it_is(_: &PlannedTensor, tensor: TensorBytes<'static>) -> TensorBytes<'static> {
    tensor
}

/// Zeroes the first third of each row of the Linears that may be pruned.
fn zeroed(planned: &PlannedTensor, tensor: TensorBytes<'static>) -> TensorBytes<'static> {
    let [_, cols] = planned.shape[..] else { return tensor };
    let prunable = planned.name.contains("layers") && !planned.name.contains("gate.weight");
    if !prunable {
        return tensor;
    }
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let mut bytes = tensor.into_bytes();
    for row in bytes.chunks_exact_mut(2 * cols) {
        row[..2 * (cols / 3)].fill(0);
    }
    TensorBytes::new(dtype, shape, bytes).expect("fits")
}

fn unstructured(total_sparsity: f64) -> Option<UnstructuredPlan> {
    Some(UnstructuredPlan {
        total_sparsity,
        ratio: 1.0 / 3.0,
        layer_ratios: Vec::new(),
        expert_ratios: Vec::new(),
        promises: None,
        reconstructs: false,
    })
}

#[track_caller]
fn check_passes(report: &VerifyReport) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.passed() && failures.is_empty(), "{failures:#?}");
    assert_eq!(report.checks.len(), report.checks.iter().filter(|c| c.passed).count());
}

#[track_caller]
fn check_fails(report: &VerifyReport, checks: &[(&str, &str)]) {
    let failures: Vec<_> =
        report.failures().map(|c| (c.name.as_str(), c.detail.as_str())).collect();
    assert_eq!(
        failures.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        checks.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        "{failures:#?}"
    );
    for ((_, detail), (name, expected)) in failures.iter().zip(checks) {
        assert!(detail.contains(expected), "{name}: no `{expected}` in: {detail}");
    }
}

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
            &[("sparsity", "the plan asks for")],
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
            None => check_fails(&report, &[("sparsity", "the plan asks for 0.99")]),
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
fn averages_are_computed_again() {
    let average = |plan: &mut Plan| {
        for layer in &mut plan.layers {
            layer.survivors[1].average_of = vec![2, 4];
            layer.survivors[1].reason = SurvivorReason::Averaged;
        }
    };
    let p = prune("arctic", average, as_it_is);
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

/// A report as a run would leave it for these survivors.
fn report(p: &Pruned, ratio: Option<f64>, weights: &Value) -> Value {
    let layers: Vec<Value> = p
        .plan
        .layers
        .iter()
        .map(|layer| {
            let kept: Vec<usize> = layer.survivors.iter().map(|s| s.source).collect();
            let clusters = [vec![0, 1], vec![2, 4], vec![3], vec![5, 6], vec![7]];
            json!({"index": layer.layer, "kept": kept, "clusters": clusters, "ratio": ratio})
        })
        .collect();
    json!({"layers": layers, "recipe": {"weights": weights}, "anything": "else"})
}

/// Verifies without a plan, beside this report.
fn verify_with(p: &Pruned, report: &Value) -> VerifyReport {
    fs::write(p.out.join("moeprune-report.json"), report.to_string()).expect("writes");
    verify(&p.out, &p.source, None).expect("verifies")
}

/// Zeroes the first quarter of every Linear of a layer that may be pruned, and of routers.
fn zeroed_with_routers(
    planned: &PlannedTensor,
    tensor: TensorBytes<'static>,
) -> TensorBytes<'static> {
    if !planned.name.ends_with("gate.weight") {
        return zeroed(planned, tensor);
    }
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let mut bytes = tensor.into_bytes();
    let quarter = bytes.len() / 4;
    bytes[..quarter].fill(0);
    TensorBytes::new(dtype, shape, bytes).expect("fits")
}

fn averaged(plan: &mut Plan) {
    for layer in &mut plan.layers {
        layer.survivors[1].average_of = vec![2, 4];
        layer.survivors[1].reason = SurvivorReason::Averaged;
    }
}

#[test]
fn a_report_without_ratios_allows_no_zeros() {
    let p = prune("mixtral", |_| (), zeroed);
    check_passes(&verify(&p.out, &p.source, None).expect("verifies"));
    check_passes(&verify_with(&p, &report(&p, Some(0.3), &json!({}))));
    let experts_only = report(&p, None, &json!({}));
    check_fails(
        &verify_with(&p, &experts_only),
        &[("experts", "45 of 45"), ("attention and dense MLPs", "12 of 12")],
    );
    let p = prune("mixtral", |_| (), as_it_is);
    check_passes(&verify_with(&p, &experts_only));
}

#[test]
fn a_report_says_which_clusters_were_averaged() {
    for (ratio, change) in [(None, as_it_is as Change), (Some(0.3), zeroed)] {
        for name in ["arctic", "mixtral"] {
            let p = prune(name, averaged, change);
            let passing = verify_with(&p, &report(&p, ratio, &json!({})));
            check_passes(&passing);
            let survivors = passing.checks.iter().find(|c| c.name == "survivors").expect("made");
            assert!(!survivors.detail.contains(" 0 of them"), "{}", survivors.detail);
        }
    }
    let p = prune("mixtral", averaged, zeroed);
    let failing = verify_with(&p, &report(&p, None, &json!({})));
    check_fails(&failing, &[("experts", "45 of 45"), ("attention and dense MLPs", "12 of 12")]);
    let mut other = report(&p, Some(0.3), &json!({}));
    for layer in other["layers"].as_array_mut().expect("a list") {
        layer["clusters"] = json!([[0, 1], [2, 6], [3], [5, 4], [7]]);
    }
    check_fails(&verify_with(&p, &other), &[("routers", "3 of 3"), ("experts", "9 of 45")]);
}

type Change = fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static>;

#[test]
fn routers_may_be_pruned_if_the_recipe_says_so() {
    for edit in [(|_| ()) as fn(&mut Plan), averaged] {
        let p = prune("mixtral", edit, zeroed_with_routers);
        let weights = json!({"prune_router": true, "ratio": 0.3});
        check_passes(&verify_with(&p, &report(&p, Some(0.3), &weights)));
        let mut plan = p.plan.clone();
        plan.unstructured = unstructured(0.5);
        plan.recipe = json!({"weights": weights});
        check_passes(&verify(&p.out, &p.source, Some(&plan)).expect("verifies"));
        // The plan has no recipe: the report's counts.
        plan.recipe = Value::Null;
        check_passes(&verify(&p.out, &p.source, Some(&plan)).expect("verifies"));
        // The plan's recipe counts more than the report's.
        plan.recipe = json!({"weights": {"ratio": 0.3, "prune_router": false}});
        check_fails(
            &verify(&p.out, &p.source, Some(&plan)).expect("verifies"),
            &[("routers", "3 of 3 tensors are wrong")],
        );
        let unsaid = report(&p, Some(0.3), &json!({}));
        let names: Vec<_> = verify_with(&p, &unsaid).failures().map(|c| c.name.clone()).collect();
        assert_eq!(names, ["routers"]);
    }
}

#[test]
fn pruned_routers_hold_zeros_and_nothing_else_new() {
    let p = prune("mixtral", |_| (), zeroed_with_routers);
    let out = Model { dir: p.out.clone(), root: tempfile::tempdir().expect("unused") };
    out.edit_tensors("model.safetensors", |tensors| {
        let name = "model.layers.1.block_sparse_moe.gate.weight";
        let router = tensors.iter_mut().find(|t| t.name == name).expect("is there");
        router.bytes[..2].copy_from_slice(&[0x80, 0x3f]);
    });
    let report = report(&p, Some(0.3), &json!({"prune_router": true}));
    check_fails(&verify_with(&p, &report), &[("routers", "and is not zero")]);
}

#[test]
fn reports_that_are_wrong() {
    let p = prune("mixtral", |_| (), as_it_is);
    let check = |pointer: &str, value: Value, expected: &[(&str, &str)]| {
        let mut wrong = report(&p, None, &json!({}));
        *wrong.pointer_mut(pointer).expect("exists") = value;
        let report = verify_with(&p, &wrong);
        if expected.is_empty() { check_passes(&report) } else { check_fails(&report, expected) }
    };
    let kept = "/layers/1/kept";
    let nowhere = |survivors| {
        [
            ("survivors", survivors),
            ("routers", "matches nothing of the source"),
            ("experts", "15 of 45"),
        ]
    };
    check(
        kept,
        json!([0, 2, 3, 4, 7]),
        &[("survivors", "several experts"), ("routers", ""), ("experts", "")],
    );
    check(kept, json!([1, 2, 3, 5, 7]), &[("routers", "layers.1"), ("experts", "3 of 45")]);
    check(kept, json!([2, 0, 3, 5, 7]), &[("routers", "layers.1"), ("experts", "6 of 45")]);
    check(kept, json!([0, 2, 3, 5]), &nowhere("layer 1: it has 5 experts, its report names 4"));
    check(kept, json!([0, 2, 2, 5, 7]), &nowhere("keeps expert 2 of 8 twice"));
    check(kept, json!([0, 2, 3, 5, 8]), &nowhere("keeps expert 8 of 8"));
    let huge = usize::MAX;
    check(kept, json!([0, 2, 3, 5, huge]), &nowhere("out of range"));
    check("/layers/1/clusters/1", json!([2, 99]), &nowhere("clusters expert 99 of 8"));
    check("/layers/1/clusters/1", json!([2, 2]), &nowhere("clusters expert 2 of 8 twice"));
    check("/layers/1/clusters", json!([]), &[]);
    check(kept, json!([-1]), &[("report", "is not a report")]);
    check("/layers", json!(7), &[("report", "is not a report")]);
    check("/layers", json!([]), &[]);
    check("/layers/1", json!({}), &[]);
    check(kept, Value::Null, &[]);
    check("/layers/1/index", json!(77), &[]);
    check("/recipe", json!("wanda"), &[]);

    // Of another source: passed over.
    let mut other = report(&p, None, &json!({}));
    other["layers"][0]["kept"] = json!([]);
    other["model"] = json!({"fingerprint": "sha256:0"});
    check_passes(&verify_with(&p, &other));
    other["model"] = json!({"fingerprint": p.plan.model_fingerprint});
    assert!(!verify_with(&p, &other).passed());

    fs::write(p.out.join("moeprune-report.json"), "{").expect("writes");
    let report = verify(&p.out, &p.source, None).expect("verifies");
    check_fails(&report, &[("report", "is not a report")]);
    fs::remove_file(p.out.join("moeprune-report.json")).expect("removes");
    fs::create_dir(p.out.join("moeprune-report.json")).expect("creates");
    let report = verify(&p.out, &p.source, None).expect("verifies");
    check_fails(&report, &[("report", "moeprune-report.json: ")]);
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
            check_fails(&missed, &[("sparsity", "the plan asks for")]);
        }
    }
}
