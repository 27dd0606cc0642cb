//! Verification of models whose experts that stay were changed to make up for those that went.

use std::fs;

use moeprune_checkpoint::{PlannedTensor, VerifyReport, verify};
use moeprune_core::{LayerPlan, Plan, Survivor, TensorBytes};
use serde_json::{Value, json};

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
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let mut bytes = tensor.into_bytes();
        let end = bytes.len() - 2;
        bytes[end..].copy_from_slice(&[0x80, 0x3f]);
        TensorBytes::new(dtype, shape, bytes).expect("fits")
    }
}

fn repairs(plan: &mut Plan) {
    plan.repairs = true;
}

/// As a plan, and then as a report, says that experts were repaired.
fn verified(p: &Pruned) -> [VerifyReport; 2] {
    let with_plan = verify(&p.out, &p.source, Some(&p.plan)).expect("verifies");
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
    let repair = p.plan.repairs.then(|| json!({"texts": [], "layers": []}));
    let report = json!({"layers": layers, "repair": repair});
    fs::write(p.out.join("moeprune-report.json"), report.to_string()).expect("writes");
    [with_plan, verify(&p.out, &p.source, None).expect("verifies")]
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
