//! Models pruned by a plan, and what verification says of them.

use std::{fs, path::PathBuf};

use moeprune_checkpoint::{Checkpoint, PlannedTensor, VerifyReport};
use moeprune_core::{Plan, SurvivorReason, TensorBytes, UnstructuredPlan};

use crate::fixture::{Model, apply, plan_keeping};

const KEPT: [usize; 5] = [0, 2, 3, 5, 7];

pub(crate) struct Pruned {
    pub(crate) source: Checkpoint,
    pub(crate) plan: Plan,
    pub(crate) out: PathBuf,
    pub(crate) model: Model,
}

/// Prunes a parity model by a plan, which may be changed first, and so may each tensor.
pub(crate) fn prune(
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

pub(crate) fn as_it_is(_: &PlannedTensor, tensor: TensorBytes<'static>) -> TensorBytes<'static> {
    tensor
}

/// Zeroes the first third of each row of the Linears that may be pruned.
pub(crate) fn zeroed(
    planned: &PlannedTensor,
    tensor: TensorBytes<'static>,
) -> TensorBytes<'static> {
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

pub(crate) fn unstructured(total_sparsity: f64) -> Option<UnstructuredPlan> {
    Some(UnstructuredPlan {
        total_sparsity,
        ratio: 1.0 / 3.0,
        layer_ratios: Vec::new(),
        expert_ratios: Vec::new(),
        promises: None,
        reconstructs: false,
    })
}

pub(crate) fn averaged(plan: &mut Plan) {
    for layer in &mut plan.layers {
        layer.survivors[1].average_of = vec![2, 4];
        layer.survivors[1].reason = SurvivorReason::Averaged;
    }
}

#[track_caller]
pub(crate) fn check_passes(report: &VerifyReport) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.passed() && failures.is_empty(), "{failures:#?}");
    assert_eq!(report.checks.len(), report.checks.iter().filter(|c| c.passed).count());
}

#[track_caller]
pub(crate) fn check_fails(report: &VerifyReport, checks: &[(&str, &str)]) {
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
