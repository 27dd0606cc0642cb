//! What holds for any layer.

mod layers;

use layers::RandomLayer;
use moeprune_core::{Dtype, repair::ExpertOutcome};
use moeprune_repair::{Refit, Ridge};
use nalgebra::DMatrix;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

fn fixed(share: f64, sweeps: usize) -> Refit {
    Refit { sweeps, least_gain: 0.0, ridge: Ridge::Share(share), ..Refit::default() }
}

/// Tokens, experts, width, features.
fn shapes() -> impl Strategy<Value = ([usize; 4], u64)> {
    ((1usize..60, 1usize..5, 1usize..6, 1usize..9), any::<u64>()).prop_map(
        |((tokens, experts, width, features), seed)| ([tokens, experts, width, features], seed),
    )
}

/// The error and the pull to the old weights together.
fn objective(layer: &RandomLayer, weights: &[Vec<f64>], ridges: &[f64]) -> f64 {
    let error = layer.error(&layer.residual_of(weights), 0..layer.fitted);
    let pull = weights.iter().zip(&layer.weights).zip(ridges).map(|((new, old), ridge)| {
        ridge * new.iter().zip(old).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
    });
    error + pull.sum::<f64>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_sweep_raises_what_is_minimised((shape, seed) in shapes()) {
        let layer = RandomLayer::new(seed, shape, false);
        let mut before = f64::INFINITY;
        for sweeps in 1..4 {
            let refitted = layer.refit::<f64>(fixed(0.01, sweeps)).unwrap();
            let ridges: Vec<f64> = refitted.repair.experts.iter().map(|e| e.ridge).collect();
            let now = objective(&layer, &refitted.weights, &ridges);
            prop_assert!(now <= before * (1.0 + 1e-12), "{now} after {before}");
            before = now;
        }
    }

    #[test]
    fn no_sweep_raises_the_error_almost_without_ridge((shape, seed) in shapes()) {
        let layer = RandomLayer::new(seed, shape, false);
        let errors = layer.refit::<f64>(fixed(1e-9, 5)).unwrap().repair.errors;
        for pair in errors.windows(2) {
            // Below that share of the first there are roundings only: errors are squares, and factors with hardly any
            // ridge multiply what is rounded.
            let floor = 1e-18 * errors[0];
            prop_assert!(pair[1] <= pair[0] * (1.0 + 1e-6) + floor, "{errors:?}");
        }
    }

    #[test]
    fn the_report_and_the_residual_are_those_of_the_weights((shape, seed) in shapes(), held_out: bool) {
        let layer = RandomLayer::new(seed, shape, held_out);
        for refitted in [layer.refit::<f32>(Refit::default()), layer.refit_as(Refit::default(), Dtype::F32)] {
            let refitted = refitted.unwrap();
            for (a, b) in refitted.residual.iter().zip(layer.residual_of(&refitted.weights)) {
                prop_assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            for (expert, survivor) in layer.experts.iter().enumerate() {
                let none = survivor.fitted_tokens(layer.fitted) == 0;
                let outcome = refitted.repair.experts[expert].outcome;
                prop_assert_eq!(none, outcome == ExpertOutcome::NoTokens);
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits((shape, seed) in shapes()) {
        let layer = RandomLayer::new(seed, shape, true);
        let on = |threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let refitted = pool.install(|| layer.refit::<f32>(Refit::default()).unwrap());
            (refitted.repair, refitted.residual, refitted.weights)
        };
        let one = on(1);
        prop_assert_eq!(&one, &on(2));
        prop_assert_eq!(&one, &on(5));
    }

    #[test]
    fn nothing_missing_changes_nothing((shape, seed) in shapes(), keep_zeros: bool) {
        let mut layer = RandomLayer::new(seed, shape, false);
        layer.residual.fill(0.0);
        let refitted = layer.refit::<f64>(Refit { keep_zeros, ..Refit::default() }).unwrap();
        prop_assert_eq!(&refitted.weights, &layer.weights);
        prop_assert_eq!(&refitted.residual, &layer.residual);
    }

    #[test]
    fn all_weights_supported_is_the_same_as_none_fixed((shape, seed) in shapes()) {
        let layer = RandomLayer::new(seed, shape, false);
        let whole = layer.refit::<f64>(Refit::default()).unwrap();
        let rows = layer.refit::<f64>(Refit { keep_zeros: true, ..Refit::default() }).unwrap();
        for (a, b) in whole.weights.iter().flatten().zip(rows.weights.iter().flatten()) {
            prop_assert!((a - b).abs() < 1e-8, "{a} {b}");
        }
    }

    /// Activations ten times as large need changes a tenth as large; the ridge follows.
    #[test]
    fn scaled_activations_scale_the_changes((shape, seed) in shapes()) {
        let layer = RandomLayer::new(seed, shape, false);
        let mut scaled = layer.clone();
        scaled.activations.iter_mut().flatten().for_each(|x| *x *= 16.0);
        let refit = Refit { least_gain: 0.0, ..Refit::default() };
        let (a, b) = (layer.refit::<f64>(refit).unwrap(), scaled.refit::<f64>(refit).unwrap());
        let old = layer.weights.iter().flatten();
        for ((a, b), old) in a.weights.iter().flatten().zip(b.weights.iter().flatten()).zip(old) {
            prop_assert!((a - old - 16.0 * (b - old)).abs() < 1e-8, "{a} {b} {old}");
        }
    }
}

/// One solution for all experts at once.
fn joint(layer: &RandomLayer, ridge: f64) -> DMatrix<f64> {
    let (tokens, features) = (layer.token_weights.len(), layer.features);
    let mut inputs = DMatrix::zeros(tokens, features * layer.experts.len());
    for (expert, survivor) in layer.experts.iter().enumerate() {
        let rows = layer.activations[expert].chunks_exact(features);
        for (row, &token) in rows.zip(&survivor.tokens) {
            for (j, x) in row.iter().enumerate() {
                inputs[(token as usize, expert * features + j)] =
                    x * layer.token_weights[token as usize].sqrt();
            }
        }
    }
    let missing = DMatrix::from_fn(tokens, layer.width, |token, out| {
        layer.residual[token * layer.width + out] * layer.token_weights[token].sqrt()
    });
    let columns = inputs.ncols();
    let matrix = inputs.transpose() * &inputs + DMatrix::identity(columns, columns) * ridge;
    matrix.cholesky().unwrap().solve(&(inputs.transpose() * missing))
}

#[test]
fn many_sweeps_are_one_joint_fit() {
    for seed in 0..4 {
        let layer = RandomLayer::new(seed, [90, 4, 3, 7], false);
        let refitted = layer.refit::<f64>(fixed(0.05, 400)).unwrap();
        let ridge = refitted.repair.experts[0].ridge;
        let expected = joint(&layer, ridge);
        for (expert, weights) in refitted.weights.iter().enumerate() {
            for (at, w) in weights.iter().enumerate() {
                let (out, j) = (at / layer.features, at % layer.features);
                let expected = expected[(expert * layer.features + j, out)];
                assert!((w - layer.weights[expert][at] - expected).abs() < 1e-11, "{w} {expected}");
            }
        }
    }
}
