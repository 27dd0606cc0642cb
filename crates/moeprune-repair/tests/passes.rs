//! A refit goes through its layer as often as it says.

mod layers;

use std::{ops::Range, sync::Mutex};

use layers::{RandomLayer, to};
use moeprune_core::{ExpertRepair as _, RepairPasses, StageError};
use moeprune_repair::{InMemoryStore, Refit, Ridge, Store};

/// What became of one expert's store.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen {
    rows: usize,
    replaced: usize,
    kept: usize,
    /// How often weights had been replaced when numbers were last kept.
    replaced_when_kept: usize,
}

/// Experts in memory, and what is done with them.
struct Counting {
    experts: InMemoryStore<f64>,
    seen: Mutex<Vec<Seen>>,
}

impl Counting {
    fn see(&self, expert: usize, count: impl FnOnce(&mut Seen)) {
        count(&mut self.seen.lock().unwrap()[expert]);
    }
}

impl Store<f64> for Counting {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f64>, StageError> {
        self.see(expert, |seen| seen.rows += rows.len());
        self.experts.activations(expert, rows)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f64>, StageError> {
        self.experts.weights(expert)
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f64>, StageError> {
        self.experts.original_weights(expert)
    }

    fn replace(&self, expert: usize, weights: Vec<f64>) -> Result<Vec<f64>, StageError> {
        self.see(expert, |seen| seen.replaced += 1);
        self.experts.replace(expert, weights)
    }

    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        self.see(expert, |seen| {
            seen.kept += 1;
            seen.replaced_when_kept = seen.replaced;
        });
        self.experts.keep(expert, numbers)
    }

    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        self.experts.kept(expert)
    }
}

/// All sweeps are done, and no token is held out.
fn check(refit: Refit, factorisations: usize) {
    let refit = Refit { least_gain: 0.0, ..refit };
    let layer = RandomLayer::new(11, [90, 3, 4, 6], false);
    let seen = Mutex::new(vec![Seen::default(); layer.experts.len()]);
    let store = Counting { experts: layer.store(), seen };
    layer.refit_with(refit, &store, &mut to(&layer.residual)).unwrap();
    let RepairPasses { reads, sweeps, factorisations: said, row_factorisations, .. } =
        refit.passes();
    assert_eq!(said, factorisations);
    assert_eq!(row_factorisations, if refit.keep_zeros { sweeps } else { 0 });
    for (expert, seen) in layer.experts.iter().zip(store.seen.into_inner().unwrap()) {
        assert_eq!(seen.rows, reads * expert.tokens.len());
        assert_eq!(seen.replaced, sweeps);
        // The Gram matrix; and a factor when it is the last one, if there are sweeps that it serves.
        let serves = factorisations > 0 && factorisations < sweeps;
        assert_eq!(seen.kept, 1 + usize::from(serves), "{refit:?}");
        if serves {
            assert_eq!(seen.replaced_when_kept + 1, factorisations, "{refit:?}");
        }
    }
}

#[test]
fn the_ridge_says_how_often_matrices_are_factored() {
    for (sweeps, factorisations) in [(1, 1), (2, 2), (3, 3), (4, 3), (7, 3)] {
        check(Refit { sweeps, ..Refit::default() }, factorisations);
    }
    for ridge in [Ridge::Floor, Ridge::Share(0.01)] {
        for sweeps in [1, 2, 5] {
            check(Refit { sweeps, ridge, ..Refit::default() }, 1);
        }
    }
}

#[test]
fn rows_with_zeros_have_matrices_of_their_own() {
    check(Refit { keep_zeros: true, ..Refit::default() }, 0);
    check(Refit { sweeps: 2, keep_zeros: true, ..Refit::default() }, 0);
}
