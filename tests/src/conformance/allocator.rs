//! What [`SparsityAllocator`] promises.

use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds an allocator to its contract:
///
/// * there is one ratio per layer;
/// * their mean, weighted by the layers' prunable weights, is the requested ratio, up to rounding;
/// * it gives the same ratios each time, from any thread;
/// * it makes do with what it asks for: outliers if there is a threshold, else nothing;
/// * the threshold, if there is one, is a number above zero.
///
/// # Panics
/// If one of these is broken.
pub fn check(allocator: &dyn SparsityAllocator) {
    check_any(allocator, true);
}

/// As [`check`], for an allocator that reproduces a reference and says that it misses the mean.
///
/// # Panics
/// If one of the other promises is broken.
pub fn check_without_total(allocator: &dyn SparsityAllocator) {
    check_any(allocator, false);
}

fn check_any(allocator: &dyn SparsityAllocator, total: bool) {
    if let Some(threshold) = allocator.outlier_threshold() {
        assert!(threshold > 0.0 && threshold.is_finite(), "outlier_threshold() is {threshold}");
    }
    for_all(&(layers(), 0.0f64..1.0), |(mut layers, share)| {
        if allocator.outlier_threshold().is_none() {
            for layer in &mut layers {
                layer.outlier_percent = None;
            }
        }
        for share in [0.0, share, 0.999] {
            let ratio =
                Sparsity::new(share).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let ratios = pure(|| allocate(allocator, &layers, ratio))?
                .map_err(|error| TestCaseError::fail(format!("refused {ratio}: {error}")))?;
            prop_assert_eq!(ratios.len(), layers.len(), "one ratio per layer");
            let mean = weighted_mean(&layers, &ratios);
            let exact = (mean - share).abs() < 1e-9;
            prop_assert!(exact || !total, "asked for {}, the layers make {}", share, mean);
        }
        Ok(())
    });
}

fn allocate(
    allocator: &dyn SparsityAllocator,
    layers: &[LayerProfile],
    ratio: Sparsity,
) -> Result<Vec<Sparsity>, String> {
    allocator.allocate(layers, ratio).map_err(|error| error.to_string())
}

fn weighted_mean(layers: &[LayerProfile], ratios: &[Sparsity]) -> f64 {
    let total: f64 = layers.iter().map(|layer| layer.prunable as f64).sum();
    let zeroed = layers.iter().zip(ratios).map(|(l, s)| l.prunable as f64 * s.value());
    zeroed.sum::<f64>() / total
}

/// One to nine layers of unequal sizes, some with as many outliers as others.
fn layers() -> impl Strategy<Value = Vec<LayerProfile>> {
    let percent = prop_oneof![Just(0.0f64), Just(3.0), Just(100.0), 0.0f64..10.0];
    prop::collection::vec((1u64..1_000_000, percent), 1..10).prop_map(|layers| {
        let profile = |(layer, (prunable, percent))| LayerProfile {
            layer,
            prunable,
            outlier_percent: Some(percent),
        };
        layers.into_iter().enumerate().map(profile).collect()
    })
}
