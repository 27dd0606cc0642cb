//! Held-out tokens are never fitted, and what makes them worse is taken back.

mod layers;

use layers::RandomLayer;
use moeprune_core::repair::ExpertOutcome;
use moeprune_repair::{Refit, Ridge};

/// What experts write has nothing to do with what is missing: a fit helps no other token.
fn noise() -> RandomLayer {
    RandomLayer::new(5, [80, 3, 4, 12], true)
}

/// What is missing is what other weights of `experts` would have written.
fn signal(experts: &[usize]) -> RandomLayer {
    let mut layer = RandomLayer::new(5, [400, 3, 4, 12], true);
    layer.residual.fill(0.0);
    let mut other = layer.weights.clone();
    for &expert in experts {
        other[expert] = RandomLayer::new(9, [1, 1, 4, 12], false).weights[0].clone();
    }
    layer.residual = layer.residual_of(&other).into_iter().map(|r| -r).collect();
    layer
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * (1.0 + a.abs()))
}

#[test]
fn a_layer_that_would_get_worse_keeps_its_weights() {
    let layer = noise();
    let refitted =
        layer.refit::<f64>(Refit { ridge: Ridge::Share(1e-6), ..Refit::default() }).unwrap();
    assert!(refitted.repair.reverted);
    assert_eq!(refitted.weights, layer.weights);
    assert!(near(&refitted.residual, &layer.residual));
    let held_out = refitted.repair.held_out.unwrap();
    assert_eq!(held_out.before, held_out.after);
    for expert in &refitted.repair.experts {
        assert_eq!(
            (expert.outcome, expert.ridge, expert.growth),
            (ExpertOutcome::Reverted, 0.0, 1.0)
        );
    }
}

#[test]
fn a_layer_that_gets_better_is_refitted() {
    let layer = signal(&[0, 1, 2]);
    let refitted = layer.refit::<f64>(Refit::default()).unwrap();
    assert!(!refitted.repair.reverted);
    let held_out = refitted.repair.held_out.unwrap();
    assert!(held_out.after < 0.05 * held_out.before, "{held_out:?}");
    assert!(near(&refitted.residual, &layer.residual_of(&refitted.weights)));
    assert!(refitted.repair.experts.iter().all(|e| e.outcome == ExpertOutcome::Refitted));
}

/// Of one expert what is missing at fitted tokens is the opposite of what is missing at the others.
#[test]
fn an_expert_that_makes_it_worse_keeps_its_weights() {
    let mut layer = signal(&[0, 1]);
    let mut other = layer.weights.clone();
    other[2].iter_mut().for_each(|w| *w += 0.3);
    let base = layer.residual.clone();
    let with = layer.residual_of(&other);
    for (at, r) in layer.residual.iter_mut().enumerate() {
        let change = with[at] - base[at];
        *r += if at / layer.width < layer.fitted { -change } else { change };
    }
    let refitted = layer.refit::<f64>(Refit::default()).unwrap();
    assert!(!refitted.repair.reverted);
    let outcomes: Vec<_> = refitted.repair.experts.iter().map(|e| e.outcome).collect();
    assert_eq!(
        outcomes,
        [ExpertOutcome::Refitted, ExpertOutcome::Refitted, ExpertOutcome::Reverted]
    );
    assert_eq!(refitted.weights[2], layer.weights[2]);
    assert!(near(&refitted.residual, &layer.residual_of(&refitted.weights)));
    let held_out = refitted.repair.held_out.unwrap();
    let error = layer.error(&refitted.residual, layer.fitted..layer.token_weights.len());
    assert!((held_out.after / error - 1.0).abs() < 1e-9);
    assert!(held_out.after < held_out.before);
}

/// What held-out tokens read and lack does not reach the weights.
#[test]
fn held_out_tokens_are_not_fitted() {
    let layer = signal(&[0, 1, 2]);
    let first = layer.refit::<f64>(Refit::default()).unwrap();
    let mut other = layer.clone();
    for (at, r) in other.residual.iter_mut().enumerate() {
        if at / layer.width >= layer.fitted {
            *r *= 1.0 + 1e-6 * (at % 7) as f64;
        }
    }
    let second = other.refit::<f64>(Refit::default()).unwrap();
    assert_eq!(first.weights, second.weights);
    assert_eq!(first.repair.errors, second.repair.errors);
}

/// One of many experts makes a layer worse by so much that it would be worse as a whole: it goes, and what the
/// others gain stays.
#[test]
fn a_layer_is_not_lost_by_one_expert() {
    let mut layer = signal(&[0, 1]);
    let mut other = layer.weights.clone();
    other[2].iter_mut().for_each(|w| *w += 10.0);
    let base = layer.residual.clone();
    let with = layer.residual_of(&other);
    for (at, r) in layer.residual.iter_mut().enumerate() {
        let change = with[at] - base[at];
        *r += if at / layer.width < layer.fitted { -change } else { change };
    }
    let refitted = layer.refit::<f64>(Refit::default()).unwrap();
    let outcomes: Vec<_> = refitted.repair.experts.iter().map(|e| e.outcome).collect();
    assert_eq!(outcomes[2], ExpertOutcome::Reverted);
    assert!(!refitted.repair.reverted && outcomes.contains(&ExpertOutcome::Refitted));
    let held_out = refitted.repair.held_out.unwrap();
    assert!(held_out.after <= held_out.before, "{held_out:?}");
}
