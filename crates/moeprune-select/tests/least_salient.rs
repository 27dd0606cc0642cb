//! Which experts go.

use moeprune_core::ExpertBudget;
use moeprune_select::least_salient;
use proptest::prelude::*;

#[track_caller]
fn check(layers: &[&[f64]], budget: ExpertBudget, protected: &[&[usize]], gone: &[&[usize]]) {
    let layers: Vec<Vec<f64>> = layers.iter().map(|l| l.to_vec()).collect();
    let protected: Vec<Vec<usize>> = protected.iter().map(|l| l.to_vec()).collect();
    assert_eq!(least_salient(&layers, &budget, &protected).unwrap(), gone);
}

const TWO: ExpertBudget = ExpertBudget::Uniform { keep: 2 };

fn global(keep: usize) -> ExpertBudget {
    ExpertBudget::Global { keep, min_per_layer: 1 }
}

#[test]
fn a_uniform_budget_ranks_each_layer() {
    check(&[&[3.0, 1.0, 2.0, 0.5], &[1.0, 1.0, 1.0, 1.0]], TWO, &[], &[&[1, 3], &[2, 3]]);
    check(&[&[3.0, 1.0, 2.0, 0.5]], TWO, &[&[3]], &[&[1, 2]]);
}

#[test]
fn a_global_budget_ranks_shares() {
    // Shares times three: 1.5, 0.9, 0.6 and 2.7, 0.15, 0.15.
    let layers: [&[f64]; 2] = [&[5.0, 3.0, 2.0], &[0.9, 0.05, 0.05]];
    check(&layers, global(4), &[], &[&[], &[1, 2]]);
    check(&layers, global(3), &[], &[&[2], &[1, 2]]);
    check(&layers, global(3), &[&[], &[1]], &[&[1, 2], &[2]]);
    let least = ExpertBudget::Global { keep: 4, min_per_layer: 2 };
    check(&layers, least, &[], &[&[2], &[2]]);
    check(&[&[0.0, 0.0], &[0.0, 0.0]], global(3), &[], &[&[], &[1]]);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |layers: &[Vec<f64>], budget, protected: &[Vec<usize>], expected: &str| {
        let error = least_salient(layers, &budget, protected).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[vec![1.0, f64::NAN, 2.0]], TWO, &[], "expert 1 is NaN");
    refused(&[vec![1.0, -1.0, 2.0]], TWO, &[], "expert 1 is -1");
    refused(&[vec![1.0]], TWO, &[], "cannot keep 2");
    refused(&[vec![1.0, 2.0, 3.0]], TWO, &[vec![0, 1, 2]], "3 experts are protected");
    refused(&[vec![1.0, 2.0, 3.0]], global(1), &[vec![0, 2]], "2 experts are protected");
}

proptest! {
    #[test]
    fn the_rest_is_at_least_as_salient(
        layers in prop::collection::vec(prop::collection::vec(0.0f64..4.0, 6), 1..5),
        keep in 1usize..=6,
    ) {
        let gone = least_salient(&layers, &ExpertBudget::Uniform { keep }, &[]).unwrap();
        for (saliencies, gone) in layers.iter().zip(&gone) {
            prop_assert_eq!(gone.len(), 6 - keep);
            let most = gone.iter().map(|&e| saliencies[e]).fold(0.0, f64::max);
            prop_assert!((0..6).all(|e| gone.contains(&e) || saliencies[e] >= most));
        }
        let total = layers.len() * 6;
        let budget = ExpertBudget::Global { keep: total * keep / 6, min_per_layer: 1 };
        let gone = least_salient(&layers, &budget, &[]).unwrap();
        prop_assert_eq!(gone.iter().map(Vec::len).sum::<usize>(), total - total * keep / 6);
        prop_assert!(gone.iter().all(|gone| gone.len() < 6));
    }
}
