//! Layers that are odd, and some that are wrong: results or errors, no panics.

mod layers;

use std::ops::Range;

use layers::{RandomLayer, to};
use moeprune_core::{StageError, repair::ExpertOutcome};
use moeprune_repair::{Error, InMemoryStore, Refit, Ridge, Store};

fn layer(shape: [usize; 4]) -> RandomLayer {
    RandomLayer::new(11, shape, false)
}

#[test]
fn odd_layers_are_refitted() {
    let check = |layer: &RandomLayer| {
        for ridge in [Ridge::Automatic, Ridge::Floor, Ridge::Share(0.0), Ridge::Share(1e-300)] {
            for keep_zeros in [false, true] {
                let refit = Refit { ridge, keep_zeros, ..Refit::default() };
                let single = layer.refit::<f32>(refit).unwrap();
                assert!(single.weights.iter().flatten().all(|w| w.is_finite()), "{refit:?}");
                let double = layer.refit::<f64>(refit).unwrap();
                assert!(double.weights.iter().flatten().all(|w| w.is_finite()), "{refit:?}");
            }
        }
    };
    check(&layer([1, 2, 3, 4]));
    check(&layer([5, 2, 3, 40]));
    check(&layer([40, 0, 3, 4]));
    check(&layer([40, 2, 3, 0]));
    check(&layer([40, 2, 0, 4]));
    check(&layer([0, 2, 3, 4]));
    let mut silent = layer([40, 2, 3, 4]);
    silent.activations.iter_mut().flatten().for_each(|x| *x = 0.0);
    check(&silent);
    let mut half_silent = layer([40, 2, 3, 4]);
    half_silent.activations[0].fill(0.0);
    check(&half_silent);
    let mut alike = layer([40, 2, 3, 4]);
    let first = alike.activations[0][..4].to_vec();
    alike
        .activations
        .iter_mut()
        .for_each(|a| a.chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&first)));
    check(&alike);
    let mut large = layer([40, 2, 3, 4]);
    large.activations.iter_mut().flatten().for_each(|x| *x *= 1e15);
    check(&large);
    let mut small = layer([40, 2, 3, 4]);
    small.activations.iter_mut().flatten().for_each(|x| *x *= 1e-15);
    check(&small);
    let mut zeros = layer([40, 2, 3, 4]);
    zeros.weights.iter_mut().flatten().for_each(|w| *w = 0.0);
    check(&zeros);
    let mut ignored = layer([40, 2, 3, 4]);
    ignored.token_weights.fill(0.0);
    check(&ignored);
    let mut all_held_out = layer([40, 2, 3, 4]);
    all_held_out.fitted = 0;
    check(&all_held_out);
    let repair = all_held_out.refit::<f64>(Refit::default()).unwrap().repair;
    assert!(repair.experts.iter().all(|e| e.outcome == ExpertOutcome::NoTokens));
}

#[test]
fn wrong_layers_are_refused() {
    let check = |change: &dyn Fn(&mut RandomLayer), message: &str| {
        let mut layer = layer([40, 2, 3, 4]);
        change(&mut layer);
        let said = layer.refit::<f32>(Refit::default()).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(message), "{said}");
    };
    check(&|l| _ = l.residual.pop(), "layer 3: expected 120 numbers in the residual, got 119");
    check(&|l| l.fitted = 41, "layer 3: expected 40 fitted tokens at most, got 41");
    check(&|l| l.token_weights[7] = -1.0, "layer 3: the weight of token 7 is -1");
    check(&|l| l.token_weights[7] = f64::NAN, "the weight of token 7 is NaN");
    check(&|l| l.experts[1].tokens[0] = 40, "surviving expert 1: token 40 must be");
    check(&|l| l.experts[1].tokens[1] = l.experts[1].tokens[0], "must be above the one before");
    check(&|l| _ = l.activations[0].pop(), "cannot read its activations");
    check(&|l| _ = l.weights[0].pop(), "expected 12 weights, got 11");
    check(&|l| l.activations[0][0] = f64::NAN, "must be finite");
    check(&|l| l.activations[0][0] = 1e30, "must be finite");
    check(&|l| l.residual.fill(f64::NAN), "it must be finite");
    check(&|l| l.residual.fill(1e38), "finite");
    for refit in [
        Refit { sweeps: 0, ..Refit::default() },
        Refit { least_gain: 1.0, ..Refit::default() },
        Refit { least_gain: f64::NAN, ..Refit::default() },
        Refit { ridge: Ridge::Share(-1.0), ..Refit::default() },
        Refit { ridge: Ridge::Share(f64::INFINITY), ..Refit::default() },
    ] {
        let refused = layer([40, 2, 3, 4]).refit::<f32>(refit).map(|_| ());
        assert!(matches!(refused, Err(Error::Parameter { .. })), "{refit:?}");
    }
}

/// Forgets what it keeps, or what it kept every second time.
struct Forgetful {
    store: InMemoryStore<f64>,
    fails: bool,
}

impl Store<f64> for Forgetful {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f64>, StageError> {
        self.store.activations(expert, rows)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f64>, StageError> {
        self.store.weights(expert)
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f64>, StageError> {
        self.store.original_weights(expert)
    }

    fn replace(&self, expert: usize, weights: Vec<f64>) -> Result<Vec<f64>, StageError> {
        if self.fails { Err("disk full".into()) } else { self.store.replace(expert, weights) }
    }

    fn keep(&self, _: usize, _: &[f64]) -> Result<(), StageError> {
        Ok(())
    }

    fn kept(&self, _: usize) -> Result<Option<Vec<f64>>, StageError> {
        Ok(None)
    }
}

#[test]
fn what_is_forgotten_is_computed_again() {
    let layer = layer([200, 3, 5, 20]);
    for ridge in [Ridge::Automatic, Ridge::Floor] {
        let refit = Refit { ridge, least_gain: 0.0, ..Refit::default() };
        let expected = layer.refit::<f64>(refit).unwrap();
        let store = Forgetful { store: layer.store(), fails: false };
        let mut residual = to(&layer.residual);
        let repair = layer.refit_with(refit, &store, &mut residual).unwrap();
        assert_eq!(repair, expected.repair);
        assert_eq!(residual, expected.residual);
        assert_eq!(store.store.into_weights(), expected.weights);
    }
}

#[test]
fn a_store_that_fails_ends_it() {
    let layer = layer([200, 3, 5, 20]);
    let store = Forgetful { store: layer.store(), fails: true };
    let error = layer.refit_with(Refit::default(), &store, &mut to(&layer.residual)).unwrap_err();
    let said = error.to_string();
    assert_eq!(said, "layer 3, surviving expert 0: cannot store its new weights: disk full");
}
