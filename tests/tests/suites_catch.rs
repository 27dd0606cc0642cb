//! The conformance suites catch stages and encodings that break their contract.

#[path = "suites_catch/encoding.rs"]
mod encoding;

use std::{
    fmt,
    panic::{UnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use moeprune_core::{
    ClusteredLayer, DistanceMatrix, ExpertBudget, ExpertClustering, ExpertSaliency, ExpertSelector,
    ExpertSimilarity, ExpertWeights, LayerBehaviour, Partition, StageError, Survivor,
    SurvivorReason,
};
use moeprune_tests::conformance;

/// `suite` must panic, and say `message`.
#[track_caller]
fn caught(suite: impl FnOnce() + UnwindSafe, message: &str) {
    let payload = catch_unwind(suite).expect_err("the suite found nothing");
    let said = payload.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains(message), "{said}");
}

/// A stage that is a closure.
struct Stage<F> {
    run: F,
    needs_observation: bool,
}

impl<F> Stage<F> {
    fn new(run: F) -> Self {
        Self { run, needs_observation: false }
    }
}

impl<F> fmt::Debug for Stage<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

impl<F> ExpertSimilarity for Stage<F>
where
    F: Fn(&LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> + Send + Sync,
{
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        (self.run)(layer)
    }

    fn needs_observation(&self) -> bool {
        self.needs_observation
    }
}

/// A saliency that is a closure.
struct Ranking<F>(F);

impl<F> fmt::Debug for Ranking<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ranking")
    }
}

impl<F> ExpertSaliency for Ranking<F>
where
    F: Fn(&LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> + Send + Sync,
{
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        (self.0)(layer)
    }
}

#[test]
fn saliencies_that_break_their_contract() {
    type Numbers = fn(usize) -> Vec<f64>;
    let wrong: [(Numbers, &str); 3] = [
        (|n| vec![1.0; n + 1], "one number per expert"),
        (|n| vec![f64::INFINITY; n], "finite and not negative"),
        (|n| vec![-1.0; n], "finite and not negative"),
    ];
    for (numbers, message) in wrong {
        let ranking = Ranking(move |layer: &LayerBehaviour<'_>| {
            layer.routing.ok_or("none")?;
            Ok(numbers(layer.experts()))
        });
        caught(|| conformance::saliency::check(&ranking), message);
    }
    let blind = Ranking(|layer: &LayerBehaviour<'_>| Ok(vec![1.0; layer.experts()]));
    caught(|| conformance::saliency::check(&blind), "needs_observation()");
    let calls = AtomicUsize::new(0);
    let moody = Ranking(move |layer: &LayerBehaviour<'_>| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        Ok(vec![call as f64; layer.experts()])
    });
    let moody = std::panic::AssertUnwindSafe(moody);
    caught(move || conformance::saliency::check(&moody.0), "two calls differ");
}

impl<F> ExpertClustering for Stage<F>
where
    F: Fn(&[DistanceMatrix], &ExpertBudget) -> Vec<Partition> + Send + Sync,
{
    fn cluster(
        &self,
        layers: &[DistanceMatrix],
        budget: &ExpertBudget,
    ) -> Result<Vec<Partition>, StageError> {
        Ok((self.run)(layers, budget))
    }
}

impl<F> ExpertSelector for Stage<F>
where
    F: Fn(&ClusteredLayer<'_>, &dyn ExpertWeights) -> Result<Vec<Survivor>, StageError>
        + Send
        + Sync,
{
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        (self.run)(layer, experts)
    }
}

fn similarity<F>(run: F, message: &str)
where
    F: Fn(&LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> + Send + Sync + UnwindSafe,
{
    caught(move || conformance::similarity::check(&Stage::new(run)), message);
}

#[test]
fn a_similarity_of_the_wrong_size() {
    similarity(|_| Ok(DistanceMatrix::from_fn(1, |_, _| 0.0)?), "one row and column");
}

#[test]
fn a_similarity_that_looks_at_indices() {
    let indices = |layer: &LayerBehaviour<'_>| {
        Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| (i * j) as f64)?)
    };
    similarity(indices, "renumbered");
}

#[test]
fn a_similarity_that_needs_what_it_does_not_ask_for() {
    let quiet = |layer: &LayerBehaviour<'_>| {
        layer.routing.ok_or("no observation")?;
        Ok(DistanceMatrix::from_fn(layer.experts(), |_, _| 0.0)?)
    };
    similarity(quiet, "needs_observation()");
    let greedy =
        |layer: &LayerBehaviour<'_>| Ok(DistanceMatrix::from_fn(layer.experts(), |_, _| 0.0)?);
    let greedy = Stage { run: greedy, needs_observation: true };
    caught(move || conformance::similarity::check(&greedy), "needs_observation()");
}

#[test]
fn a_similarity_that_remembers() {
    let calls = AtomicUsize::new(0);
    let count = move |layer: &LayerBehaviour<'_>| {
        let call = calls.fetch_add(1, Ordering::Relaxed) as f64;
        Ok(DistanceMatrix::from_fn(layer.experts(), |_, _| call)?)
    };
    similarity(count, "two calls differ");
}

/// Puts the last experts of every layer together.
fn keep_first(layers: &[DistanceMatrix], keep: usize) -> Vec<Partition> {
    let labels = |n: usize| (0..n).map(|e| e.min(keep - 1)).collect::<Vec<_>>();
    layers.iter().map(|d| Partition::from_labels(&labels(d.len()))).collect()
}

fn clustering<F>(run: F, uniform: &str, global: &str)
where
    F: Fn(&[DistanceMatrix], &ExpertBudget) -> Vec<Partition> + Send + Sync + UnwindSafe + Copy,
{
    caught(move || conformance::clustering::check_uniform(&Stage::new(run)), uniform);
    caught(move || conformance::clustering::check_global(&Stage::new(run)), global);
}

#[test]
fn a_clustering_that_ignores_the_budget() {
    let merge_all = |layers: &[DistanceMatrix], _: &ExpertBudget| keep_first(layers, 1);
    clustering(merge_all, "clusters of layer", "clusters over all layers");
}

#[test]
fn a_clustering_that_loses_a_layer() {
    let lose = |layers: &[DistanceMatrix], _: &ExpertBudget| keep_first(&layers[1..], 1);
    clustering(lose, "one partition per layer", "one partition per layer");
}

#[test]
fn a_clustering_of_the_wrong_experts() {
    let wrong = |layers: &[DistanceMatrix], _: &ExpertBudget| {
        layers.iter().map(|d| Partition::singletons(d.len() + 1)).collect()
    };
    clustering(wrong, "experts of layer", "experts of layer");
}

#[test]
fn a_clustering_that_ignores_the_minimum() {
    // Meets the total by emptying the first layers.
    let unfair = |layers: &[DistanceMatrix], budget: &ExpertBudget| {
        let ExpertBudget::Global { keep, .. } = *budget else { return Vec::new() };
        let mut excess = layers.iter().map(DistanceMatrix::len).sum::<usize>() - keep;
        let cut = |d: &DistanceMatrix| {
            let merges = excess.min(d.len().saturating_sub(1));
            excess -= merges;
            keep_first(std::slice::from_ref(d), (d.len() - merges).max(1)).swap_remove(0)
        };
        layers.iter().map(cut).collect()
    };
    caught(move || conformance::clustering::check_global(&Stage::new(unfair)), "below its minimum");
}

fn survivor(source: usize) -> Survivor {
    Survivor {
        source,
        reason: SurvivorReason::LowestIndex,
        average_of: Vec::new(),
        average_weights: Vec::new(),
    }
}

fn selector(
    run: impl Fn(&[Vec<usize>]) -> Vec<Survivor> + Send + Sync + UnwindSafe,
    message: &str,
) {
    let stage = Stage::new(move |layer: &ClusteredLayer<'_>, _: &dyn ExpertWeights| {
        Ok(run(layer.partition.clusters()))
    });
    caught(move || conformance::selector::check(&stage), message);
}

#[test]
fn a_selector_that_forgets_a_cluster() {
    selector(|c| c[1..].iter().map(|c| survivor(c[0])).collect(), "one survivor a cluster");
}

#[test]
fn a_selector_that_takes_two_of_one_cluster() {
    let first_experts = |c: &[Vec<usize>]| (0..c.len()).map(survivor).collect();
    selector(first_experts, "survivors of cluster");
}

#[test]
fn a_selector_in_any_order() {
    selector(|c| c.iter().rev().map(|c| survivor(c[0])).collect(), "ascending by source");
    selector(|c| c.iter().map(|c| survivor(c[c.len() - 1])).collect(), "ascending by source");
}

#[test]
fn a_selector_that_makes_experts_up() {
    selector(|c| (0..c.len()).map(|e| survivor(100 + e)).collect(), "does not exist");
}

#[test]
fn a_selector_with_untrue_reasons() {
    let alone = |c: &Vec<usize>| Survivor { reason: SurvivorReason::Alone, ..survivor(c[0]) };
    selector(move |c| c.iter().map(alone).collect(), "alone in");
    let averaged = |c: &Vec<usize>| Survivor { average_of: c.clone(), ..survivor(c[0]) };
    selector(move |c| c.iter().map(averaged).collect(), "average_of");
}

#[test]
fn a_selector_that_averages_across_clusters() {
    selector(
        |c| {
            let all: Vec<usize> = (0..c.iter().map(Vec::len).sum()).collect();
            let average = |c: &Vec<usize>| Survivor {
                source: c[0],
                reason: SurvivorReason::Averaged,
                average_of: all.clone(),
                average_weights: Vec::new(),
            };
            c.iter().map(average).collect()
        },
        "averages beyond its cluster",
    );
}

#[test]
fn a_selector_that_reads_too_far() {
    let stage = Stage::new(|layer: &ClusteredLayer<'_>, experts: &dyn ExpertWeights| {
        experts.read(layer.partition.experts(), 0, &mut [0.0])?;
        Ok(layer.partition.clusters().iter().map(|c| survivor(c[0])).collect())
    });
    caught(move || conformance::selector::check(&stage), "was asked for and is not there");
}

#[test]
fn a_selector_that_reads_though_it_says_it_does_not() {
    #[derive(Debug)]
    struct Denies;
    impl ExpertSelector for Denies {
        fn select(
            &self,
            layer: &ClusteredLayer<'_>,
            experts: &dyn ExpertWeights,
        ) -> Result<Vec<Survivor>, StageError> {
            experts.read(0, 0, &mut [0.0])?;
            Ok(layer.partition.clusters().iter().map(|c| survivor(c[0])).collect())
        }

        fn reads_experts(&self, _: &Partition) -> bool {
            false
        }
    }
    caught(|| conformance::selector::check(&Denies), "it says that it reads no expert");
}
