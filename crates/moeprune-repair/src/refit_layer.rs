//! One layer from its first sweep to what is reported of it.

use moeprune_core::{ExpertRepair, LayerRepair, LayerToRepair, RepairPasses, StageError};
use moeprune_linalg::Real;

use crate::{
    Error, Layer, Refit, Ridge,
    expert::HELD,
    guard,
    layer::Single,
    sweeps::{ESTIMATES, Sweeps},
};

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

    fn passes(&self) -> RepairPasses {
        let sweeps = self.sweeps;
        // A factor serves all sweeps from the one on before which the ridge changes for the last time.
        let factorisations = match self.ridge {
            Ridge::Automatic => sweeps.min(1 + ESTIMATES),
            Ridge::Floor | Ridge::Share(_) => sweeps.min(1),
        };
        let rows = self.keep_zeros;
        RepairPasses {
            // Fitted tokens for Gram matrices and held-out ones for the check, together once.
            reads: 1 + sweeps,
            sweeps,
            factorisations: if rows { 0 } else { factorisations },
            row_factorisations: if rows { sweeps } else { 0 },
            held_bytes: HELD as u64,
        }
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
        let rounding = sweeps.rounding(layer);
        let repair =
            LayerRepair { rounding, ..LayerRepair::new(layer.layer, errors, sweeps.outcomes()) };
        match held_out {
            Some(before) => guard::guard(layer, before, repair),
            None => Ok(repair),
        }
    }
}
