//! The conformance suite of repairs catches those that break their contract.

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use moeprune_core::{
    ExpertRepair, LayerRepair, LayerToRepair, RepairStore, StageError,
    repair::{ExpertOutcome, HeldOutError, RepairedExpert},
};
use moeprune_repair::Refit;
use moeprune_tests::conformance;

/// A repair that is a closure.
struct Repair<F>(F);

impl<F> fmt::Debug for Repair<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Repair")
    }
}

impl<F> ExpertRepair for Repair<F>
where
    F: Fn(&mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> + Send + Sync,
{
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        (self.0)(layer)
    }
}

/// The suite must panic, and say `message`.
#[track_caller]
fn caught<F>(repair: F, message: &str)
where
    F: Fn(&mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> + Send + Sync,
{
    let suite = AssertUnwindSafe(|| conformance::repair::check(&Repair(repair)));
    let payload = catch_unwind(suite).expect_err("the suite found nothing");
    let said = payload.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains(message), "{said}");
}

fn refit(layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
    Refit::default().repair(layer)
}

/// Says that weights became what was asked for.
struct Unrounded<'a>(&'a dyn RepairStore);

impl RepairStore for Unrounded<'_> {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError> {
        self.0.activations(expert, rows)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        self.0.weights(expert)
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        self.0.original_weights(expert)
    }

    fn replace(&self, expert: usize, weights: Vec<f32>) -> Result<Vec<f32>, StageError> {
        self.0.replace(expert, weights.clone())?;
        Ok(weights)
    }
}

#[test]
fn residuals_of_other_weights() {
    let stale = |layer: &mut LayerToRepair<'_>| {
        let before = layer.residual.to_vec();
        let report = refit(layer);
        layer.residual.copy_from_slice(&before);
        report
    };
    caught(stale, "the residual at");
    let unrounded = |layer: &mut LayerToRepair<'_>| {
        let store = Unrounded(layer.store);
        refit(&mut LayerToRepair { residual: &mut *layer.residual, store: &store, ..*layer })
    };
    caught(unrounded, "the residual at");
}

#[test]
fn tokens_and_experts_that_are_not_to_be_touched() {
    let fits_all = |layer: &mut LayerToRepair<'_>| {
        let (fitted, tokens) = (layer.fitted, layer.tokens());
        let before = layer.error(0..fitted);
        let all = LayerToRepair { residual: &mut *layer.residual, fitted: tokens, ..*layer };
        let mut all = all;
        let mut report = refit(&mut all)?;
        report.errors = vec![before, layer.error(0..fitted)];
        Ok(report)
    };
    caught(fits_all, "held-out tokens are fitted");
    let idle = |layer: &mut LayerToRepair<'_>| {
        let report = refit(layer)?;
        for (index, expert) in layer.experts.iter().enumerate() {
            if expert.tokens.is_empty() {
                let zeros = vec![0.0; layer.width * expert.features];
                layer.store.replace(index, zeros)?;
            }
        }
        Ok(report)
    };
    caught(idle, "has no tokens and changed");
}

#[test]
fn reports_of_something_else() {
    let spoiled = |spoil: fn(&mut LayerRepair)| {
        move |layer: &mut LayerToRepair<'_>| {
            let mut report = refit(layer)?;
            spoil(&mut report);
            Ok(report)
        }
    };
    caught(spoiled(|report| report.layer = 0), "the layer in the report");
    caught(spoiled(|report| report.experts.truncate(1)), "experts in the report");
    caught(spoiled(|report| report.errors[0] *= 2.0), "the error before is");
    caught(spoiled(|report| report.errors.push(0.5)), "the error after is");
    let none = HeldOutError { before: 0.0, after: 0.0 };
    caught(move |layer| refit(layer).map(|r| LayerRepair { held_out: Some(none), ..r }), "held");
    let kept = |report: &mut LayerRepair| {
        for expert in &mut report.experts {
            *expert = RepairedExpert::unchanged(expert.expert, ExpertOutcome::Reverted);
        }
    };
    caught(spoiled(kept), "is reported as reverted and changed");
}

#[test]
fn results_that_differ() {
    let calls = AtomicUsize::new(0);
    let counts = |layer: &mut LayerToRepair<'_>| {
        let mut report = refit(layer)?;
        report.experts[0].ridge = calls.fetch_add(1, Ordering::Relaxed) as f64;
        Ok(report)
    };
    caught(counts, "two calls differ");
    let by_threads = |layer: &mut LayerToRepair<'_>| {
        let mut report = refit(layer)?;
        report.experts[0].ridge = rayon::current_num_threads() as f64;
        Ok(report)
    };
    caught(by_threads, "threads give another result");
}
