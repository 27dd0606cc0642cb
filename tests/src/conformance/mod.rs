/*!
What the traits of the workspace promise, as tests that any implementation can run.

Each suite takes an implementation and panics with what it did wrong. A crate with a custom stage
runs it in two lines:

```
use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError};
use moeprune_tests::conformance;

#[derive(Debug)]
struct AllAlike;

impl ExpertSimilarity for AllAlike {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        Ok(DistanceMatrix::from_fn(layer.experts(), |_, _| 0.0)?)
    }
}

conformance::similarity::check(&AllAlike);
```

| suite | holds to its contract |
|---|---|
| [`similarity`] | [`ExpertSimilarity`](moeprune_core::ExpertSimilarity) |
| [`clustering`] | [`ExpertClustering`](moeprune_core::ExpertClustering) |
| [`saliency`] | [`ExpertSaliency`](moeprune_core::ExpertSaliency) |
| [`selector`] | [`ExpertSelector`](moeprune_core::ExpertSelector) |
| [`scorer`] | [`WeightScorer`](moeprune_core::WeightScorer) and [`MaskPattern`](moeprune_core::MaskPattern) |
| [`reconstructor`] | [`WeightReconstructor`](moeprune_core::WeightReconstructor) |
| [`repair`] | [`ExpertRepair`](moeprune_core::ExpertRepair) |
| [`allocator`] | [`SparsityAllocator`](moeprune_core::SparsityAllocator) |
| [`encoding`] | [`Encoding`](moeprune_core::Encoding) |
| [`tensors`] | [`TensorSource`](moeprune_core::TensorSource) and [`TensorSink`](moeprune_core::TensorSink) |
| [`files`] | [`Files`](moeprune_files::Files) and [`ReadAt`](moeprune_files::ReadAt) |
| [`container`] | [`Container`](moeprune_checkpoint::Container) |
| [`layer`] | [`Layer::forward`](moeprune_model::Layer::forward), and what it owes an [`ActivationSink`](moeprune_model::ActivationSink) |
| [`family`] | a family's descriptor, and the code of its kinds, to values that public code computed |
| [`extra_layers`] | layers behind the decoder's, pruned, kept and dropped |
| [`activation_sink`] | [`ActivationSink`](moeprune_model::ActivationSink) |
| [`generator`] | [`Generator`](moeprune_eval::Generator) |

A suite holds an implementation to the documentation of its trait and to nothing else: not to good
results, and not to surviving what the pipeline guarantees never to pass. Inputs are drawn from a
fixed seed, so a suite says the same each time.
*/

use std::{fmt, thread};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

pub mod activation_sink;
pub mod allocator;
pub mod clustering;
pub mod container;
pub mod encoding;
pub mod extra_layers;
pub mod family;
pub mod files;
pub mod generator;
pub mod layer;
pub mod reconstructor;
pub mod repair;
mod requantising;
pub mod saliency;
pub mod scorer;
pub mod selector;
pub mod similarity;
pub mod tensors;

/// Runs `property` on values of `strategy`, the same ones each time.
///
/// # Panics
/// With the smallest value found to break it.
fn for_all<S>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: fmt::Debug,
{
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    if let Err(broken) = TestRunner::new_with_rng(config, rng).run(strategy, property) {
        panic!("{broken}");
    }
}

/// Calls `stage` here and on two other threads at once: a pure function gives three equal results.
fn pure<T>(stage: impl Fn() -> T + Sync) -> Result<T, TestCaseError>
where
    T: PartialEq + fmt::Debug + Send,
{
    let first = stage();
    let others = thread::scope(|scope| {
        let calls = [scope.spawn(&stage), scope.spawn(&stage)];
        calls.map(|call| call.join())
    });
    for other in others {
        let other = other.map_err(|_| TestCaseError::fail("it panics on another thread"))?;
        if other != first {
            let message = format!("two calls differ:\n  {first:?}\n  {other:?}");
            return Err(TestCaseError::fail(message));
        }
    }
    Ok(first)
}
