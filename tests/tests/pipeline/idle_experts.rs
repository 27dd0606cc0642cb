//! Experts that no calibration token reached.

use moeprune::{checkpoint::Checkpoint, recipe::IdleExperts};

use crate::scratch::{asset, recipe, run, tokens};

fn check(idle: IdleExperts) -> (moeprune::Report, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.5, 0.0);
    recipe.calibration.samples = 1;
    recipe.calibration.sequence_len = 8;
    recipe.weights.idle_experts = idle;
    let calibration = tokens(scratch.path(), 1, 8, 256);
    let report =
        run(&asset("parity/arctic"), &scratch.path().join("out"), &calibration, &recipe).unwrap();
    assert!(!report.idle_experts.is_empty(), "8 tokens reach every expert; use fewer");
    (report, scratch)
}

/// Share of zeros of every expert matrix of the idle experts.
fn zero_shares(report: &moeprune::Report, scratch: &tempfile::TempDir) -> Vec<f64> {
    let pruned = Checkpoint::open(&scratch.path().join("out")).unwrap();
    let shares = report.idle_experts.iter().flat_map(|idle| {
        ["w1", "w2", "w3"].map(|w| {
            let (layer, expert) = (idle.layer, idle.expert);
            let name = format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{w}.weight");
            let values = pruned.tensor_by_name(&name).unwrap().to_f32().unwrap();
            values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64
        })
    });
    shares.collect()
}

#[test]
fn are_pruned_by_magnitude_so_that_the_total_holds() {
    let (report, scratch) = check(IdleExperts::Magnitude);
    assert!((report.sparsity.achieved.linears - 0.5).abs() < 5e-4);
    for share in zero_shares(&report, &scratch) {
        assert!((0.3..0.7).contains(&share), "{share}");
    }
}

#[test]
fn are_left_dense_where_the_reference_leaves_them() {
    let (report, scratch) = check(IdleExperts::Dense);
    assert!(report.sparsity.achieved.linears < 0.499);
    assert!(zero_shares(&report, &scratch).iter().all(|share| *share == 0.0));
}
