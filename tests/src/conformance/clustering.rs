//! What [`ExpertClustering`] promises.

use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a clustering to its contract under uniform budgets:
///
/// * every layer is left with exactly as many clusters as requested, from one to all its experts;
/// * there is one partition per layer, in order, of that layer's experts;
/// * it gives the same partitions each time, from any thread;
/// * ties and negative distances are met like any others.
///
/// # Panics
/// If one of these is broken.
pub fn check_uniform(clustering: &dyn ExpertClustering) {
    for_all(&(layers(1), 0.0f64..1.0), |(layers, share)| {
        let fewest = sizes(&layers).min().unwrap_or(1);
        for keep in [1, between(1, fewest, share), fewest] {
            let partitions = run(clustering, &layers, &ExpertBudget::Uniform { keep })?;
            for (layer, partition) in partitions.iter().enumerate() {
                prop_assert_eq!(partition.len(), keep, "clusters of layer {}", layer);
            }
        }
        Ok(())
    });
}

/// Holds a clustering to its contract under global budgets:
///
/// * exactly as many clusters as requested are left over all layers, from the minimum to all experts;
/// * no layer has fewer than its minimum, or than its experts if they are fewer still;
/// * the other promises of [`check_uniform`], with layers of no expert among the rest.
///
/// # Panics
/// If one of these is broken.
pub fn check_global(clustering: &dyn ExpertClustering) {
    for_all(&(layers(0), 0.0f64..1.0, 1usize..4), |(layers, share, min_per_layer)| {
        let floors: Vec<usize> = sizes(&layers).map(|n| n.min(min_per_layer)).collect();
        let (fewest, all) = (floors.iter().sum(), sizes(&layers).sum());
        for keep in [fewest, between(fewest, all, share), all] {
            let budget = ExpertBudget::Global { keep, min_per_layer };
            let partitions = run(clustering, &layers, &budget)?;
            let left: usize = partitions.iter().map(Partition::len).sum();
            prop_assert_eq!(left, keep, "clusters over all layers, {:?}", budget);
            for (layer, (partition, &floor)) in partitions.iter().zip(&floors).enumerate() {
                prop_assert!(partition.len() >= floor, "layer {} is below its minimum", layer);
            }
        }
        Ok(())
    });
}

fn run(
    clustering: &dyn ExpertClustering,
    layers: &[DistanceMatrix],
    budget: &ExpertBudget,
) -> Result<Vec<Partition>, TestCaseError> {
    let cluster = || clustering.cluster(layers, budget).map_err(|error| error.to_string());
    let partitions = pure(cluster)?
        .map_err(|error| TestCaseError::fail(format!("refused {budget:?}: {error}")))?;
    prop_assert_eq!(partitions.len(), layers.len(), "one partition per layer");
    for (layer, (partition, n)) in partitions.iter().zip(sizes(layers)).enumerate() {
        prop_assert_eq!(partition.experts(), n, "experts of layer {}", layer);
    }
    Ok(partitions)
}

fn sizes(layers: &[DistanceMatrix]) -> impl Iterator<Item = usize> + '_ {
    layers.iter().map(DistanceMatrix::len)
}

/// A whole number from `low` to `high`, both included.
fn between(low: usize, high: usize, share: f64) -> usize {
    low + (share * (high - low + 1) as f64) as usize
}

/// Layers of `fewest` to 9 experts. Distances are drawn from few values, for ties, or from many;
/// some are negative.
fn layers(fewest: usize) -> impl Strategy<Value = Vec<DistanceMatrix>> {
    let values = prop_oneof![Just(1i32), Just(4), Just(100_000)];
    let layer = (fewest..10, values).prop_flat_map(|(n, values)| {
        let upper = prop::collection::vec(-values / 2..values, n * n);
        upper.prop_map(move |values| {
            DistanceMatrix::from_fn(n, |i, j| f64::from(values[i * n + j]) / 3.0)
                .expect("drawn from finite values")
        })
    });
    prop::collection::vec(layer, 1..5)
}
