//! Layer ratios.

use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator};
use moeprune_score::{Owl, ScoreSum, Uniform};
use proptest::prelude::*;

fn profiles(outliers: &[f64], prunable: &[u64]) -> Vec<LayerProfile> {
    outliers
        .iter()
        .zip(prunable)
        .enumerate()
        .map(|(layer, (&o, &prunable))| LayerProfile { layer, prunable, outlier_percent: Some(o) })
        .collect()
}

fn allocate(owl: &Owl, layers: &[LayerProfile], s: f64) -> Vec<f64> {
    let ratios = owl.allocate(layers, Sparsity::new(s).unwrap()).unwrap();
    ratios.into_iter().map(Sparsity::value).collect()
}

fn weighted_mean(layers: &[LayerProfile], ratios: &[f64]) -> f64 {
    let total: f64 = layers.iter().map(|l| l.prunable as f64).sum();
    layers.iter().zip(ratios).map(|(l, s)| l.prunable as f64 * s).sum::<f64>() / total
}

fn close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 1e-12, "{got:?}, expected {expected:?}");
    }
}

#[test]
fn the_formula() {
    let reference = Owl { exact_total: false, ..Owl::default() };
    let check = |owl: &Owl, outliers: &[f64], s: f64, expected: &[f64]| {
        close(&allocate(owl, &profiles(outliers, &vec![10; outliers.len()]), s), expected);
    };
    for owl in [reference, Owl::default()] {
        check(&owl, &[1.0, 3.0, 5.0], 0.7, &[0.78, 0.70, 0.62]);
        check(&owl, &[2.0, 2.0, 2.0], 0.7, &[0.7, 0.7, 0.7]);
        check(&owl, &[2.0], 0.3, &[0.3]);
        check(&owl, &[0.0, 5e-324], 0.3, &[0.3, 0.3]);
        check(&owl, &[1.0, 9.0], 0.0, &[0.0, 0.0]);
        check(&owl, &[], 0.5, &[]);
        check(&Owl { lambda: 0.0, ..owl }, &[1.0, 9.0], 0.5, &[0.5, 0.5]);
    }
    // Below zero: the reference says 0.01, which is more than was asked.
    check(&reference, &[1.0, 3.0, 5.0], 0.05, &[0.13, 0.05, 0.01]);
    check(&Owl::default(), &[1.0, 3.0, 5.0], 0.05, &[0.11, 0.03, 0.01]);
    // Beyond the ceiling.
    check(&reference, &[1.0, 3.0, 5.0], 0.95, &[0.99, 0.95, 0.87]);
    check(&Owl::default(), &[1.0, 3.0, 5.0], 0.95, &[0.99, 0.97, 0.89]);
    // Targets beyond the bounds move the bounds.
    check(&Owl::default(), &[1.0, 5.0], 0.995, &[0.995, 0.995]);
    check(&Owl::default(), &[1.0, 5.0], 0.005, &[0.005, 0.005]);
}

#[test]
fn unequal_layers_still_meet_the_total() {
    let layers = profiles(&[1.0, 3.0, 5.0], &[1000, 10, 10]);
    let plain = allocate(&Owl { exact_total: false, ..Owl::default() }, &layers, 0.7);
    assert!((weighted_mean(&layers, &plain) - 0.7).abs() > 0.07);
    let exact = allocate(&Owl::default(), &layers, 0.7);
    assert!((weighted_mean(&layers, &exact) - 0.7).abs() < 1e-12);
    assert!((exact[0] - exact[2] - 0.16).abs() < 1e-12);
}

#[test]
fn empty_layers_weigh_nothing() {
    let layers = profiles(&[1.0, 3.0], &[0, 10]);
    let ratios = allocate(&Owl::default(), &layers, 0.5);
    assert!((ratios[1] - 0.5).abs() < 1e-12);
    close(&allocate(&Owl::default(), &profiles(&[1.0, 3.0], &[0, 0]), 0.5), &[0.58, 0.42]);
}

#[test]
fn impossible_parameters_and_profiles_are_refused() {
    let refused = |owl: Owl, outlier: Option<f64>, says: &str| {
        let layers = [LayerProfile { layer: 7, prunable: 1, outlier_percent: outlier }];
        let error = owl.allocate(&layers, Sparsity::new(0.5).unwrap()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(Owl::default(), None, "layer 7 has None");
    refused(Owl::default(), Some(f64::NAN), "NaN");
    refused(Owl::default(), Some(100.5), "100.5");
    refused(Owl::default(), Some(-1.0), "-1");
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        refused(Owl { multiplier: bad, ..Owl::default() }, Some(1.0), "multiplier M");
    }
    for bad in [f64::NAN, f64::INFINITY, 1.0, -0.1] {
        refused(Owl { lambda: bad, ..Owl::default() }, Some(1.0), "lambda");
    }
}

#[test]
fn uniform_is_uniform() {
    let s = Sparsity::new(0.3).unwrap();
    assert_eq!(Uniform.allocate(&profiles(&[1.0, 2.0], &[1, 2]), s).unwrap(), [s, s]);
    assert_eq!(Uniform.outlier_threshold(), None);
    assert_eq!(Owl::default().outlier_threshold(), Some(5.0));
}

#[test]
fn no_scores_have_no_threshold() {
    assert_eq!(ScoreSum::default().threshold(5.0), None);
    assert_eq!(ScoreSum::default().percent(0), None);
    assert_eq!(ScoreSum { sum: 8.0, count: 4 }.threshold(5.0), Some(10.0));
    assert_eq!(ScoreSum { sum: 8.0, count: 4 }.percent(1), Some(25.0));
}

proptest! {
    #[test]
    fn the_total_is_exact_and_the_order_kept(
        layers in prop::collection::vec((0f64..100.0, 1u64..1 << 40), 1..60),
        s in 0f64..1.0,
        lambda in 0f64..0.99,
    ) {
        let (outliers, prunable): (Vec<f64>, Vec<u64>) = layers.into_iter().unzip();
        let layers = profiles(&outliers, &prunable);
        let owl = Owl { lambda, ..Owl::default() };
        let ratios = allocate(&owl, &layers, s);
        prop_assert!((weighted_mean(&layers, &ratios) - s).abs() < 1e-12, "{ratios:?}");
        for (a, s_a) in outliers.iter().zip(&ratios) {
            for (b, s_b) in outliers.iter().zip(&ratios) {
                prop_assert!(a <= b || s_a <= s_b);
            }
        }
    }

    #[test]
    fn the_reference_keeps_the_unweighted_mean(
        outliers in prop::collection::vec(0f64..100.0, 2..60),
        s in 0.2f64..0.8,
    ) {
        let owl = Owl { exact_total: false, ..Owl::default() };
        let ratios = allocate(&owl, &profiles(&outliers, &vec![1; outliers.len()]), s);
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        prop_assert!((mean - s).abs() < 1e-12);
        let spread = ratios.iter().copied().fold(0.0, f64::max)
            - ratios.iter().copied().fold(1.0, f64::min);
        prop_assert!((spread - 0.16).abs() < 1e-12 || spread == 0.0);
    }
}
