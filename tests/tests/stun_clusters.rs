//! Router rows and counts through the built-in similarities and the reference linkage, against
//! the released STUN code.

use moeprune_cluster::reference_clusters;
use moeprune_core::{ExpertSimilarity, LayerBehaviour, MatrixView, Partition, RoutingSums};
use moeprune_similarity::{CoActivation, RouterDistance, RouterNormalization};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "E")]
    experts: usize,
    topk: usize,
    /// `None`: infinite.
    threshold: Option<f64>,
    division_by_norm: bool,
    coact: Option<Vec<Vec<u64>>>,
    gate: Option<Vec<Vec<f32>>>,
    clusters: Vec<Vec<usize>>,
}

#[test]
fn similarity_and_linkage_together() {
    let cases = include_str!("../../crates/moeprune-cluster/tests/data/stun_clusters.json");
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    for (number, case) in cases.into_iter().enumerate() {
        let n = case.experts;
        let gate = case.gate.map_or_else(|| vec![0.0; n], |gate| gate.concat());
        let router = MatrixView::new(n, gate.len() / n, &gate).unwrap();
        let routing = case.coact.map(|coact| RoutingSums {
            // Top-2: an expert was chosen once for each partner it had.
            counts: coact.iter().map(|row| row.iter().sum()).collect(),
            coactivation: coact.concat(),
            ..RoutingSums::new(n, 2)
        });
        let layer = LayerBehaviour { routing: routing.as_ref(), ..LayerBehaviour::new(0, router) };
        let normalization = if case.division_by_norm {
            RouterNormalization::FrobeniusNorm
        } else {
            RouterNormalization::None
        };
        let similarity: &dyn ExpertSimilarity = if routing.is_some() {
            &CoActivation::default()
        } else {
            &RouterDistance { normalization, ..RouterDistance::default() }
        };
        let distances = similarity.distances(&layer).unwrap();
        let threshold = case.threshold.unwrap_or(f64::INFINITY);
        let got = reference_clusters(&distances, threshold, case.topk);
        assert_eq!(got, Partition::new(n, case.clusters).unwrap(), "case {number}");
    }
}
