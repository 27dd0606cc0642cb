//! The written bytes have the requested sparsity.

use moeprune::{
    checkpoint::{Checkpoint, count_zeros},
    core::{LinearId, ParameterCounts, TensorId, TensorSource},
    recipe::{Budget, Statistics},
};

use crate::scratch::{asset, recipe, run, tokens};

/// Removed and zero weights over the source's decoder Linears, counted from the files.
fn counted(source: &Checkpoint, pruned: &Checkpoint) -> f64 {
    let before = ParameterCounts::of(source.spec()).linears;
    let mut left = 0;
    for layer in 0..pruned.spec().layers.len() {
        for linear in pruned.spec().linears(layer) {
            if linear.id != LinearId::Router {
                let tensor = pruned.tensor(TensorId::linear(layer, linear.id)).unwrap();
                left += linear.parameters() - count_zeros(&tensor).unwrap();
            }
        }
    }
    1.0 - left as f64 / before as f64
}

fn check(model: &str, change: impl FnOnce(&mut moeprune::Recipe), total: f64, experts: f64) {
    let scratch = tempfile::tempdir().unwrap();
    let (model, out) = (asset(model), scratch.path().join("out"));
    let mut recipe = recipe(total, experts);
    change(&mut recipe);
    let source = Checkpoint::open(&model).unwrap();
    let calibration = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
    let report = run(&model, &out, &calibration, &recipe).unwrap();
    let pruned = Checkpoint::open(&out).unwrap();
    let achieved = counted(&source, &pruned);
    assert!((achieved - report.sparsity.achieved.linears).abs() < 1e-12, "the report is wrong");
    if recipe.prunes_weights() {
        assert!((achieved - total).abs() < 5e-4, "asked {total}, achieved {achieved}");
    }
    let all: usize = report.layers.iter().map(|l| l.experts_before).sum();
    let kept: usize = report.layers.iter().map(|l| l.kept.len()).sum();
    let per_layer = report.layers.iter().find(|l| l.experts_before > 0).unwrap().experts_before;
    let removed = match recipe.experts.budget {
        Budget::Global => (all as f64 * experts).round() as usize,
        _ => (per_layer as f64 * experts).round() as usize * (all / per_layer),
    };
    assert_eq!(all - kept, removed);
    let verified = moeprune::checkpoint::verify(&out, &source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
    let counts: Vec<usize> =
        pruned.spec().layers.iter().filter_map(|l| l.moe()).map(|m| m.experts).collect();
    assert_eq!(counts.iter().sum::<usize>(), kept);
}

#[test]
fn defaults_at_several_totals() {
    for total in [0.3, 0.4, 0.6, 0.8] {
        check("parity/arctic", |_| (), total, 0.25);
    }
}

#[test]
fn every_family_and_layout() {
    for model in ["parity/arctic_freq2", "parity/mixtral", "parity/mixtral_sharded"] {
        check(model, |_| (), 0.5, 0.25);
    }
}

#[test]
fn weights_only() {
    check("parity/arctic", |_| (), 0.5, 0.0);
    check("parity/mixtral", |r| r.weights.allocation = "uniform".into(), 0.65, 0.0);
}

#[test]
fn experts_only() {
    check("parity/arctic", |_| (), 0.5, 0.5);
    check("parity/mixtral", |r| r.experts.budget = Budget::Global, 0.3, 0.3);
}

#[test]
fn global_budget_with_weights() {
    check("parity/arctic", |r| r.experts.budget = Budget::Global, 0.6, 0.4);
}

#[test]
fn every_similarity_and_clustering() {
    for similarity in ["router", "coactivation", "mixed", "outputs"] {
        for clustering in ["complete", "average", "reference", "kmeans"] {
            for budget in [Budget::Uniform, Budget::Global] {
                let change = |r: &mut moeprune::Recipe| {
                    r.experts.similarity = similarity.into();
                    r.experts.clustering = clustering.into();
                    r.experts.budget = budget;
                };
                check("parity/arctic", change, 0.375, 0.375);
            }
        }
    }
}

#[test]
fn every_criterion() {
    for criterion in ["frequency", "gate", "ean", "ean:over=mean", "reap", "peak", "random:seed=7"]
    {
        for budget in [Budget::Uniform, Budget::Global] {
            let change = |r: &mut moeprune::Recipe| {
                r.experts.criterion = criterion.parse().unwrap();
                r.experts.budget = budget;
                r.experts.protect_super_experts = true;
            };
            check("parity/arctic", change, 0.375, 0.375);
        }
    }
}

#[test]
fn every_way_to_merge() {
    for survivor in ["nearest", "busiest", "average", "weighted-average"] {
        check("parity/mixtral", |r| r.experts.survivor = survivor.into(), 0.5, 0.25);
    }
}

#[test]
fn weights_that_stay_make_up_for_those_that_go() {
    let sparsegpt = |r: &mut moeprune::Recipe| {
        r.weights.scorer = "sparsegpt:least_tokens=1".parse().unwrap();
    };
    check("parity/arctic", sparsegpt, 0.5, 0.25);
    check("parity/mixtral_sharded", sparsegpt, 0.5, 0.0);
}

#[test]
fn two_of_four() {
    for scorer in ["wanda", "sparsegpt:least_tokens=1"] {
        let change = |r: &mut moeprune::Recipe| {
            r.weights.scorer = scorer.parse().unwrap();
            r.weights.allocation = "uniform".into();
            r.weights.pattern = "2:4".parse().unwrap();
        };
        check("parity/arctic", change, 0.5, 0.0);
    }
}

#[test]
fn every_allocation() {
    for allocation in ["uniform", "owl", "depth:slope=0.1", "depth:slope=-0.1"] {
        let change = |r: &mut moeprune::Recipe| {
            r.weights.allocation = allocation.parse().unwrap();
        };
        check("parity/arctic_freq2", change, 0.5, 0.25);
    }
}

#[test]
fn statistics_of_a_stored_observation() {
    check("parity/arctic", |r| r.weights.statistics = Statistics::Stored, 0.5, 0.25);
}

#[test]
fn layers_that_fall_to_two_experts_are_averaged() {
    check("parity/mixtral", |_| (), 0.8, 0.75);
}
