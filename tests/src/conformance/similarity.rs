//! What [`ExpertSimilarity`] promises.

use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, MatrixView, RoutingSums};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a similarity to its contract:
///
/// * it returns a distance for every pair of the layer's experts, for a layer of one expert too;
/// * it gives the same distances each time, from any thread;
/// * experts have no order: renumbered, they are as far apart as before, up to rounding;
/// * without an observation it fails if and only if it says that it needs one;
/// * an observation without a token is no reason to panic.
///
/// # Panics
/// If one of these is broken.
pub fn check(similarity: &dyn ExpertSimilarity) {
    for_all(&layers(), |layer| {
        let distances = pure(|| layer.distances(similarity, true))?.map_err(TestCaseError::fail)?;
        prop_assert_eq!(distances.len(), layer.experts, "one row and column per expert");
        layer.reversed().check_reversed(similarity, &distances)?;
        let without = layer.distances(similarity, false);
        prop_assert_eq!(
            without.is_err(),
            similarity.needs_observation(),
            "needs_observation() and what happens without one"
        );
        let silent = Layer { routing: RoutingSums::new(layer.experts, 2), ..layer };
        if let Ok(distances) = silent.distances(similarity, true) {
            prop_assert_eq!(distances.len(), silent.experts);
        }
        Ok(())
    });
    let alone = Layer {
        experts: 1,
        router: vec![0.5, -1.0],
        routing: RoutingSums { tokens: 3, counts: vec![3], ..RoutingSums::with_outputs(1, 1, 2) },
    };
    match alone.distances(similarity, true) {
        Ok(distances) => assert_eq!(distances.len(), 1, "a layer of one expert"),
        Err(error) => panic!("a layer of one expert: {error}"),
    }
}

/// A layer that top-2 routing was observed on, in which every expert was chosen.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) experts: usize,
    /// `[experts, hidden]`
    pub(super) router: Vec<f32>,
    pub(super) routing: RoutingSums,
}

impl Layer {
    fn distances(
        &self,
        similarity: &dyn ExpertSimilarity,
        observed: bool,
    ) -> Result<DistanceMatrix, String> {
        let layer = self.behaviour(observed)?;
        similarity.distances(&layer).map_err(|error| error.to_string())
    }

    pub(super) fn behaviour(&self, observed: bool) -> Result<LayerBehaviour<'_>, String> {
        let hidden = self.router.len() / self.experts;
        let router = MatrixView::new(self.experts, hidden, &self.router)
            .map_err(|error| error.to_string())?;
        let routing = observed.then_some(&self.routing);
        Ok(LayerBehaviour { routing, ..LayerBehaviour::new(3, router) })
    }

    /// The same layer, its experts numbered from the other end.
    fn reversed(&self) -> Self {
        let hidden = self.router.len() / self.experts;
        let reverse = |values: &[f64]| values.iter().rev().copied().collect();
        let RoutingSums { tokens, top_k, counts, coactivation, .. } = &self.routing;
        Self {
            experts: self.experts,
            router: self.router.chunks(hidden).rev().flatten().copied().collect(),
            routing: RoutingSums {
                tokens: *tokens,
                top_k: *top_k,
                counts: counts.iter().rev().copied().collect(),
                coactivation: coactivation.iter().rev().copied().collect(),
                gate_sums: reverse(&self.routing.gate_sums),
                gated_output_norms: reverse(&self.routing.gated_output_norms),
                output_norms: reverse(&self.routing.output_norms),
                output_peaks: reverse(&self.routing.output_peaks),
                output_sums: self.reversed_outputs(),
            },
        }
    }

    fn reversed_outputs(&self) -> Vec<f64> {
        let sums = &self.routing.output_sums;
        let width = (sums.len() / self.experts).max(1);
        sums.chunks(width).rev().flatten().copied().collect()
    }

    fn check_reversed(
        &self,
        similarity: &dyn ExpertSimilarity,
        forward: &DistanceMatrix,
    ) -> Result<(), TestCaseError> {
        let backward = self.distances(similarity, true).map_err(TestCaseError::fail)?;
        let last = self.experts - 1;
        for (i, j, distance) in forward.pairs() {
            let other = backward.at(last - i, last - j);
            let near = (distance - other).abs() <= 1e-9 * distance.abs().max(other.abs()).max(1.0);
            prop_assert!(near, "experts {} and {}, renumbered: {} and {}", i, j, distance, other);
        }
        Ok(())
    }
}

pub(super) fn layers() -> impl Strategy<Value = Layer> {
    (2usize..7, 1usize..5).prop_flat_map(|(experts, hidden)| {
        let router = prop::collection::vec(-3.0f32..3.0, experts * hidden);
        let pairs = prop::collection::vec((0..experts, 1..experts, 0.5f64..1.0), 0..60);
        (router, pairs).prop_map(move |(router, pairs)| {
            let mut routing = RoutingSums::with_outputs(experts, 2, 2);
            // One token for each neighbouring pair, so that no expert is idle.
            let all = (0..experts).map(|e| (e, 1, 0.75));
            for (first, step, gate) in all.chain(pairs) {
                let second = (first + step) % experts;
                routing.tokens += 1;
                routing.coactivation[first * experts + second] += 1;
                routing.coactivation[second * experts + first] += 1;
                for (expert, gate) in [(first, gate), (second, 1.0 - gate)] {
                    let norm = 1.0 + expert as f64;
                    routing.counts[expert] += 1;
                    routing.gate_sums[expert] += gate;
                    routing.gated_output_norms[expert] += gate * norm;
                    routing.output_norms[expert] += norm;
                    routing.output_peaks[expert] = norm.max(routing.output_peaks[expert]);
                    routing.output_sums[2 * expert] += norm * gate;
                    routing.output_sums[2 * expert + 1] += norm * (1.0 - gate);
                }
            }
            Layer { experts, router, routing }
        })
    })
}
