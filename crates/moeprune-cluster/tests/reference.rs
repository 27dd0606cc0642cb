//! The greedy linkage against results of the released STUN code and against a transcription of
//! its rule.

use std::collections::BTreeSet;

use moeprune_cluster::{Dendrogram, Linkage, reference_clusters};
use moeprune_core::{DistanceMatrix, Partition};
use proptest::prelude::*;
use serde::Deserialize;

/// A layer and what the released code made of it.
#[derive(Deserialize)]
struct Case {
    #[serde(rename = "E")]
    experts: usize,
    mode: String,
    topk: usize,
    /// `None`: infinite.
    threshold: Option<f64>,
    division_by_norm: bool,
    coact: Option<Vec<Vec<f64>>>,
    gate: Option<Vec<Vec<f64>>>,
    clusters: Vec<Vec<usize>>,
}

impl Case {
    fn distances(&self) -> DistanceMatrix {
        let n = self.experts;
        match self.mode.as_str() {
            "coact" => {
                let counts = self.coact.as_ref().unwrap();
                let mean = counts.iter().flatten().sum::<f64>() / (n * n) as f64;
                DistanceMatrix::from_fn(n, |i, j| -counts[i][j] / mean).unwrap()
            }
            "weight" => {
                let gate = self.gate.as_ref().unwrap();
                let norm = gate.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
                let scale = if self.division_by_norm { norm } else { 1.0 };
                let squares = |i: usize, j: usize| -> f64 {
                    gate[i].iter().zip(&gate[j]).map(|(a, b)| (a - b).powi(2)).sum()
                };
                DistanceMatrix::from_fn(n, |i, j| squares(i, j).sqrt() / scale).unwrap()
            }
            other => panic!("unknown mode {other}"),
        }
    }
}

#[test]
fn the_released_code_gives_the_same_clusters() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/stun_clusters.json")).unwrap();
    assert_eq!(cases.len(), 24);
    for (number, case) in cases.iter().enumerate() {
        let threshold = case.threshold.unwrap_or(f64::INFINITY);
        let got = reference_clusters(&case.distances(), threshold, case.topk);
        let expected = Partition::new(case.experts, case.clusters.clone()).unwrap();
        assert_eq!(got, expected, "case {number}");
    }
}

/// The upper triangle, row by row.
#[track_caller]
fn check(n: usize, upper: &[f64], threshold: f64, max_merges: usize, expected: &[&[usize]]) {
    let mut values = upper.iter();
    let d = DistanceMatrix::from_fn(n, |_, _| *values.next().unwrap()).unwrap();
    assert_eq!(values.next(), None);
    assert_eq!(reference_clusters(&d, threshold, max_merges).clusters(), expected);
}

const PARTIAL: [f64; 6] = [1.0, 3.0, 4.0, 5.0, 6.0, 2.0];

#[test]
fn only_edges_at_the_endpoints_are_looked_at() {
    check(4, &PARTIAL, 5.5, 3, &[&[0, 1, 2, 3]]);
}

#[test]
fn complete_linkage_looks_at_all_of_them() {
    let mut values = PARTIAL.into_iter();
    let d = DistanceMatrix::from_fn(4, |_, _| values.next().unwrap()).unwrap();
    let complete = Dendrogram::new(&d, Linkage::Complete).cut_below(5.5);
    assert_eq!(complete.clusters(), [[0, 1], [2, 3]]);
}

/// 01:4 02:6 03:2 04:9 12:8 13:7 14:10 23:1 24:3 34:5
const NOT_MONOTONE: [f64; 10] = [4.0, 6.0, 2.0, 9.0, 8.0, 7.0, 10.0, 1.0, 3.0, 5.0];

#[test]
fn a_higher_threshold_can_leave_more_clusters() {
    check(5, &NOT_MONOTONE, 5.5, 4, &[&[0, 1], &[2, 3, 4]]);
    check(5, &NOT_MONOTONE, 6.5, 4, &[&[0, 2, 3], &[1], &[4]]);
}

#[test]
fn the_threshold_is_strict() {
    check(3, &[1.0, 2.0, 2.0], 1.0, 2, &[&[0], &[1], &[2]]);
    check(3, &[1.0, 2.0, 2.0], 2.0, 2, &[&[0, 1], &[2]]);
    check(3, &[1.0, 2.0, 2.0], f64::INFINITY, 2, &[&[0, 1, 2]]);
}

#[test]
fn merges_are_limited() {
    check(4, &PARTIAL, f64::INFINITY, 0, &[&[0], &[1], &[2], &[3]]);
    check(4, &PARTIAL, f64::INFINITY, 1, &[&[0, 1], &[2], &[3]]);
    check(4, &PARTIAL, f64::INFINITY, 2, &[&[0, 1], &[2, 3]]);
    check(4, &PARTIAL, f64::INFINITY, usize::MAX, &[&[0, 1, 2, 3]]);
}

#[test]
fn hostile_thresholds_and_sizes() {
    check(2, &[1.0], f64::NAN, 1, &[&[0], &[1]]);
    check(2, &[1.0], f64::NEG_INFINITY, 1, &[&[0], &[1]]);
    check(1, &[], f64::INFINITY, 5, &[&[0]]);
    check(0, &[], f64::INFINITY, 5, &[]);
}

/// The rule read literally: the smallest entry of the full matrix is taken and struck out, again
/// and again, clusters being sets.
fn transcription(d: &DistanceMatrix, threshold: f64, top_k: usize) -> Partition {
    let n = d.len();
    let mut open: BTreeSet<(usize, usize)> = d.pairs().map(|(i, j, _)| (i, j)).collect();
    let mut rejected = BTreeSet::new();
    let mut clusters: Vec<BTreeSet<usize>> = (0..n).map(|e| BTreeSet::from([e])).collect();
    while clusters.len() > n.saturating_sub(top_k) {
        let mut best: Option<(usize, usize)> = None;
        for &(i, j) in &open {
            if best.is_none_or(|(p, q)| d.at(i, j) < d.at(p, q)) {
                best = Some((i, j));
            }
        }
        let Some((i, j)) = best else { break };
        if d.at(i, j) >= threshold {
            break;
        }
        open.remove(&(i, j));
        let holds = |e: usize| clusters.iter().position(|c| c.contains(&e)).unwrap();
        let (p, q) = (holds(i), holds(j));
        if p == q {
            continue;
        }
        let near = |a: usize, b: usize| {
            d.at(a, b) < threshold && !rejected.contains(&(a.min(b), a.max(b)))
        };
        if clusters[p].iter().all(|&m| near(m, j)) && clusters[q].iter().all(|&m| near(m, i)) {
            let absorbed = std::mem::take(&mut clusters[q]);
            clusters[p].extend(absorbed);
            clusters.remove(q);
        } else {
            rejected.insert((i, j));
        }
    }
    Partition::new(n, clusters.into_iter().map(|c| c.into_iter().collect()).collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn equals_the_rule_read_literally(
        n in 1usize..12,
        values in prop::collection::vec(0u8..20, 144),
        coarse in any::<bool>(),
        threshold in 0u8..22,
        top_k in 0usize..13,
    ) {
        let d = DistanceMatrix::from_fn(n, |i, j| {
            f64::from(values[i * n + j] / if coarse { 5 } else { 1 })
        }).unwrap();
        let threshold = f64::from(threshold) / if coarse { 5.0 } else { 1.0 };
        prop_assert_eq!(
            reference_clusters(&d, threshold, top_k),
            transcription(&d, threshold, top_k)
        );
    }

    /// Nothing can be rejected above all distances: the cheapest merges are single linkage.
    #[test]
    fn without_a_threshold_it_is_single_linkage(
        n in 1usize..12,
        values in prop::collection::vec(0u32..1_000_000, 144),
        merges in 0usize..12,
    ) {
        let d = DistanceMatrix::from_fn(n, |i, j| f64::from(values[i * n + j])).unwrap();
        let distinct: BTreeSet<u64> = d.pairs().map(|(_, _, d)| d.to_bits()).collect();
        prop_assume!(distinct.len() == d.pairs().count());
        let single = Dendrogram::new(&d, Linkage::Single).cut_into(n.saturating_sub(merges).max(1));
        prop_assert_eq!(reference_clusters(&d, f64::INFINITY, merges), single);
    }
}
