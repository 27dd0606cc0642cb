//! The repair by its parameters.

use crate::{Error, Ridge};

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

impl Refit {
    /// Whether the parameters are in their ranges.
    pub(crate) fn check(&self) -> Result<(), Error> {
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
