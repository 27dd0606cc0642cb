//! Verification of models whose experts that stay were changed to make up for those that went.

use std::fs;

use moeprune_checkpoint::{Checkpoint, PlannedTensor, VerifyReport, verify};
use moeprune_core::{
    LayerPlan, LinearId, MlpProjection, Plan, Survivor, TensorBytes, TensorId, TensorSource,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pruned::{
    Pruned, as_it_is, averaged, check_fails, check_passes, prune, unstructured, zeroed,
};

const DOWN: &str = "w2.weight";
const GATE: &str = "w1.weight";

/// Changes the last weight of every tensor with this ending.
fn with_others(
    ending: &'static str,
    after: impl Fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static>,
) -> impl Fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static> {
    move |planned, tensor| {
        let tensor = after(planned, tensor);
        if !planned.name.ends_with(ending) {
            return tensor;
        }
        bytes(tensor, |bytes| {
            let end = bytes.len() - 2;
            bytes[end..].copy_from_slice(&[0x80, 0x3f]);
        })
    }
}

fn repairs(plan: &mut Plan) {
    plan.repairs = true;
}

/// As a plan, and then as a report, says that experts were repaired.
fn verified(p: &Pruned) -> [VerifyReport; 2] {
    let with_plan = verify(&p.out, &p.source, Some(&p.plan)).expect("verifies");
    [with_plan, verified_by(p, &report_of(p))]
}

fn verified_by(p: &Pruned, report: &Value) -> VerifyReport {
    fs::write(p.out.join("moeprune-report.json"), report.to_string()).expect("writes");
    verify(&p.out, &p.source, None).expect("verifies")
}

fn report_of(p: &Pruned) -> Value {
    let entry = |layer: &LayerPlan| {
        let clusters = match layer.survivors.len() {
            5 => vec![vec![0, 1], vec![2, 4], vec![3], vec![5, 6], vec![7]],
            all => (0..all).map(|expert| vec![expert]).collect(),
        };
        let kept: Vec<usize> = layer.survivors.iter().map(|s| s.source).collect();
        let merged: Vec<_> = layer.survivors.iter().filter(|s| !s.average_of.is_empty()).collect();
        let ratio = p.plan.unstructured.as_ref().map(|asked| asked.ratio);
        json!({"index": layer.layer, "kept": kept, "clusters": clusters, "merged": merged, "ratio": ratio})
    };
    let layers: Vec<Value> = p.plan.layers.iter().map(entry).collect();
    let lost = |layer: &&LayerPlan| layer.survivors.len() < layer.experts_before;
    let repaired = p.plan.layers.iter().filter(lost);
    let repaired = repaired.map(|layer| json!({"repair": {"layer": layer.layer}}));
    let repaired = Vec::from_iter(repaired);
    let repair = p.plan.repairs.then(|| json!({"texts": [], "layers": repaired}));
    json!({"layers": layers, "repair": repair})
}

/// A report that says what was repaired of each layer, and how many weights are zero.
fn detailed(p: &Pruned) -> Value {
    let mut report = report_of(p);
    let found = verified_by(p, &report).sparsity.expect("counted");
    let pruned = Checkpoint::open_with(&p.out, Some(p.source.family().clone())).expect("opens");
    let hash = |layer, expert| {
        let down = LinearId::Expert(expert, MlpProjection::Down);
        let tensor = pruned.tensor(TensorId::linear(layer, down)).expect("reads");
        format!("{:x}", Sha256::digest(tensor.bytes()))
    };
    let entry = |plan: &LayerPlan| {
        let experts = || 0..plan.survivors.len();
        let outcomes = experts().map(|e| json!({"expert": e, "outcome": "refitted"}));
        let parts = experts().map(|e| json!({"expert": e, "sha256": hash(plan.layer, e)}));
        json!({
            "repair": {"layer": plan.layer, "reverted": false, "experts": Vec::from_iter(outcomes)},
            "parts": Vec::from_iter(parts),
        })
    };
    report["repair"]["layers"] = p.plan.layers.iter().map(entry).collect();
    report["sparsity"]["achieved"] =
        json!({"experts": found.experts, "linears": found.linears, "all": found.all});
    report
}

/// Changes the bytes of a tensor.
fn bytes(tensor: TensorBytes<'static>, change: impl Fn(&mut Vec<u8>)) -> TensorBytes<'static> {
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let mut bytes = tensor.into_bytes();
    change(&mut bytes);
    TensorBytes::new(dtype, shape, bytes).expect("fits")
}

#[test]
fn down_projections_may_differ_in_layers_that_lost_experts() {
    for edit in [repairs as fn(&mut Plan), |plan| (repairs(plan), averaged(plan)).0] {
        let p = prune("mixtral", edit, with_others(DOWN, as_it_is));
        for report in verified(&p) {
            check_passes(&report);
            let experts = report.checks.iter().find(|check| check.name == "experts");
            let detail = &experts.expect("made").detail;
            assert!(detail.contains("15 of 45 tensors were changed to make up"), "{detail}");
        }
    }
}

#[test]
fn zeros_are_counted_in_what_was_repaired() {
    let masked = |plan: &mut Plan| {
        repairs(plan);
        plan.unstructured = unstructured(0.9);
    };
    let zeros = |ending| {
        let p = prune("mixtral", masked, with_others(ending, zeroed));
        let [report, _] = verified(&p);
        check_fails(&report, &[("sparsity", "but 0.9")]);
        report.linears.iter().map(|linear| linear.zeros).sum::<u64>()
    };
    assert_eq!(zeros(DOWN), zeros("no tensor"));
}

#[test]
fn nothing_else_may_differ() {
    let check = |edit: fn(&mut Plan), ending, expected: &[(&str, &str)]| {
        let p = prune("mixtral", edit, with_others(ending, as_it_is));
        for report in verified(&p) {
            check_fails(&report, expected);
        }
    };
    check(repairs, GATE, &[("experts", "15 of 45 tensors are wrong")]);
    check(|_| (), DOWN, &[("experts", "15 of 45 tensors are wrong")]);
    check(repairs, "gate.weight", &[("routers", "3 of 3 tensors are wrong")]);
    check(repairs, "o_proj.weight", &[("attention and dense MLPs", "3 of 12")]);
    // Layer 0 keeps all of its experts.
    let keeps_all = |plan: &mut Plan| {
        repairs(plan);
        let one = plan.layers[0].survivors[0].clone();
        plan.layers[0].survivors =
            (0..8).map(|source| Survivor { source, ..one.clone() }).collect();
    };
    check(keeps_all, DOWN, &[("experts", "8 of 54 tensors are wrong; first: `model.layers.0")]);
}

type Change = fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static>;

fn is_first(planned: &PlannedTensor) -> bool {
    planned.name.contains("layers.0.") && planned.name.ends_with("experts.1.w2.weight")
}

fn one_bit(planned: &PlannedTensor, tensor: TensorBytes<'static>) -> TensorBytes<'static> {
    bytes(tensor, |bytes| bytes[0] ^= u8::from(is_first(planned)))
}

fn without_down(planned: &PlannedTensor, tensor: TensorBytes<'static>) -> TensorBytes<'static> {
    let down = planned.name.ends_with(DOWN);
    bytes(tensor, |bytes| {
        if down {
            bytes.fill(0)
        }
    })
}

/// Repairs, lets a report be edited, and puts it beside the same model with another change after.
fn check_against_report(
    edit: fn(&mut Plan),
    (at_first, now): (Change, Change),
    of_report: fn(&mut Value),
    expected: &[(&str, &str)],
) -> String {
    let mut report = detailed(&prune("mixtral", edit, with_others(DOWN, at_first)));
    of_report(&mut report);
    let before = with_others(DOWN, at_first);
    let p = prune("mixtral", edit, |planned, tensor| now(planned, before(planned, tensor)));
    let found = verified_by(&p, &report);
    check_fails(&found, expected);
    let experts = found.checks.iter().find(|check| check.name == "experts");
    experts.expect("made").detail.clone()
}

fn no_hashes(report: &mut Value) {
    for layer in report["repair"]["layers"].as_array_mut().expect("layers") {
        layer["parts"] = Value::Null;
    }
}

#[test]
fn new_weights_are_what_the_report_says() {
    let check = |now, of_report, expected: &[(&str, &str)]| {
        check_against_report(repairs, (as_it_is, now), of_report, expected)
    };
    let all: fn(&mut Value) = |_| ();
    assert!(check(as_it_is, all, &[]).contains("to what the report says (SHA-256)"));
    check(one_bit, all, &[("experts", "1 of 45 tensors is wrong; first: `model.layers.0")]);
    let zero = ("reported sparsity", "of the experts are removed or zero");
    check(without_down, all, &[("experts", "is not what the repair made of it"), zero]);
    check(without_down, no_hashes, &[zero]);
    assert!(check(one_bit, no_hashes, &[]).contains("which cannot be checked"));
}

#[test]
fn what_was_taken_back_is_as_it_was() {
    let check = |of_report, expected| {
        check_against_report(repairs, (as_it_is, as_it_is), of_report, &[("experts", expected)]);
    };
    check(
        |report| {
            report["repair"]["layers"][0]["repair"]["experts"][1]["outcome"] = "reverted".into();
        },
        "1 of 45 tensors is wrong",
    );
    check(
        |report| {
            report["repair"]["layers"][0]["repair"]["experts"][1]["outcome"] = "no_tokens".into();
            no_hashes(report);
        },
        "1 of 45 tensors is wrong",
    );
    check(
        |report| report["repair"]["layers"][1]["repair"]["reverted"] = true.into(),
        "5 of 45 tensors are wrong; first: `model.layers.1",
    );
    check(
        |report| {
            let parts = report["repair"]["layers"][0]["parts"].as_array_mut();
            parts.expect("parts").remove(1);
        },
        "1 of 45 tensors is wrong",
    );
}

#[test]
fn each_layer_that_lost_experts_is_reported() {
    let p = prune("mixtral", repairs, with_others(DOWN, as_it_is));
    let check = |plan, edit: fn(&mut Value), expected| {
        let mut report = report_of(&p);
        edit(&mut report);
        fs::write(p.out.join("moeprune-report.json"), report.to_string()).expect("writes");
        let expected: &[_] = match expected {
            "" => &[],
            problem => &[("repaired layers", problem)],
        };
        check_fails(&verify(&p.out, &p.source, plan).expect("verifies"), expected);
    };
    let without_one = |report: &mut Value| {
        report["repair"]["layers"].as_array_mut().expect("layers").remove(1);
    };
    for plan in [None, Some(&p.plan)] {
        check(plan, |_| (), "");
        check(plan, without_one, "what that did to layers [1]");
        check(plan, |report| report["repair"] = json!({}), "to layers [0, 1, 2]");
    }
    check(Some(&p.plan), |report| report["repair"] = Value::Null, "to layers [0, 1, 2]");
}

#[test]
fn zeros_after_a_repair_are_counted() {
    let masked = |plan: &mut Plan| {
        repairs(plan);
        plan.unstructured = unstructured(0.5);
    };
    let check = |now, expected: &[(&str, &str)]| {
        check_against_report(masked, (zeroed, now), |_| (), expected)
    };
    assert!(check(as_it_is, &[]).contains("only counted"));
    check(without_down, &[("reported sparsity", "the report says")]);
}
