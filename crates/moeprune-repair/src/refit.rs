//! The sweeps over a layer's experts.

use moeprune_core::{ExpertRepair, LayerRepair, LayerToRepair, StageError};
use moeprune_linalg::Real;

use crate::{Error, Layer, Ridge, guard, layer::Single, sweeps::Sweeps};

/// Refits the down projections of the experts that stay, by ridge regression on what is missing.
///
/// Experts are refitted one after the other, by ascending index, each to what the ones before it left
/// missing, and all of them again in the next sweep. See the [crate's documentation](crate) for formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refit {
    /// The most sweeps over the experts of a layer.
    pub sweeps: usize,
    /// A sweep that lowers the error by less than this share of it is the last one. 0 for all sweeps.
    pub least_gain: f64,
    /// How strongly new weights are pulled to the old ones.
    pub ridge: Ridge,
    /// Whether weights that are zero stay so. Each row of weights then has a system of its own, so
    /// this takes as many factorisations as an expert has outputs.
    pub keep_zeros: bool,
}

impl Default for Refit {
    fn default() -> Self {
        Self { sweeps: 4, least_gain: 0.01, ridge: Ridge::Automatic, keep_zeros: false }
    }
}

impl ExpertRepair for Refit {
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        let store = Single(layer.store);
        let mut layer = Layer {
            layer: layer.layer,
            width: layer.width,
            residual: &mut *layer.residual,
            token_weights: layer.token_weights,
            fitted: layer.fitted,
            experts: layer.experts,
            store: &store,
        };
        Ok(self.refit(&mut layer)?)
    }

    fn keeps_zeros(&self) -> bool {
        self.keep_zeros
    }
}

impl Refit {
    /// Refits a layer in either type; [`repair`](ExpertRepair::repair) does so in `f32`.
    ///
    /// # Errors
    /// If the layer's numbers do not fit each other or are not finite, if an expert cannot be fitted with any
    /// ridge, if its store fails, or if a parameter is out of its range.
    pub fn refit<T: Real>(&self, layer: &mut Layer<'_, T>) -> Result<LayerRepair, Error> {
        self.check()?;
        layer.check()?;
        let (fitted, tokens) = (layer.fitted, layer.tokens());
        let held_out = (fitted < tokens).then(|| layer.error(fitted..tokens));
        let mut errors = vec![layer.error(0..fitted)];
        let mut sweeps = Sweeps::new(self, layer)?;
        for sweep in 0..self.sweeps {
            sweeps.run(layer, sweep)?;
            let (before, now) = (errors[sweep], layer.error(0..fitted));
            errors.push(now);
            // Written so that an error that is no number ends it.
            let gained = now < before * (1.0 - self.least_gain);
            if self.least_gain > 0.0 && !gained || sweep + 1 == self.sweeps {
                break;
            }
            sweeps.estimate_ridge(layer, sweep, now);
        }
        let experts = sweeps.outcomes();
        let number = layer.layer;
        let repair =
            LayerRepair { layer: number, errors, held_out: None, reverted: false, experts };
        match held_out {
            Some(before) => guard::guard(layer, before, repair),
            None => Ok(repair),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |name, value, range| Err(Error::Parameter { name, value, range });
        if self.sweeps == 0 {
            return wrong("sweeps", 0.0, "1 or more");
        }
        if !(0.0..1.0).contains(&self.least_gain) {
            return wrong("least_gain", self.least_gain, "at least 0 and below 1");
        }
        match self.ridge {
            Ridge::Share(share) if !(share >= 0.0 && share.is_finite()) => {
                wrong("ridge", share, "a finite share of the mean square, 0 or more")
            }
            _ => Ok(()),
        }
    }
}
