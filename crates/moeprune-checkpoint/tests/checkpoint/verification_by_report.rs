//! Verification without a plan, by the report that a run left.

use std::fs;

use moeprune_checkpoint::{PlannedTensor, VerifyReport, verify};
use moeprune_core::{Plan, TensorBytes};
use serde_json::{Value, json};

use crate::{
    fixture::Model,
    pruned::{Pruned, as_it_is, averaged, check_fails, check_passes, prune, unstructured, zeroed},
};

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
fn the_total_of_a_report_is_held() {
    let p = prune("mixtral", |_| (), zeroed);
    let mut asked = report(&p, Some(0.3), &json!({}));
    let total = verify_with(&p, &asked).sparsity.expect("counted").linears;
    asked["sparsity"] = json!({"requested": total});
    check_passes(&verify_with(&p, &asked));
    let out = Model { dir: p.out.clone(), root: tempfile::tempdir().expect("unused") };
    out.edit_tensors("model.safetensors", |tensors| {
        let name = "model.layers.1.block_sparse_moe.experts.2.w1.weight";
        tensors.iter_mut().find(|t| t.name == name).expect("is there").bytes.fill(0);
    });
    check_fails(&verify_with(&p, &asked), &[("sparsity", "of the decoder Linears was asked for")]);
    let mut given = asked.clone();
    given["recipe"]["weights"]["ratio"] = json!(0.3);
    check_passes(&verify_with(&p, &given));
    // Weights were zeroed in no layer: the total that a recipe names is of no stage that ran.
    let p = prune("mixtral", |_| (), as_it_is);
    let mut experts_only = report(&p, None, &json!({}));
    experts_only["sparsity"] = asked["sparsity"].clone();
    check_passes(&verify_with(&p, &experts_only));
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
