//! A share of weights that are zero or gone.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A share of weights that are zero or gone: at least 0, below 1.
///
/// ```
/// use moeprune_core::Sparsity;
/// assert_eq!(Sparsity::new(0.4)?.value(), 0.4);
/// assert!(Sparsity::new(1.0).is_err());
/// assert!(Sparsity::new(f64::NAN).is_err());
/// # Ok::<(), moeprune_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// Nothing is zero.
    pub const ZERO: Self = Self(0.0);

    /// Checks that `share` is at least 0 and below 1.
    ///
    /// # Errors
    /// [`Error::Sparsity`] otherwise, also for NaN.
    pub fn new(share: f64) -> Result<Self, Error> {
        if (0.0..1.0).contains(&share) { Ok(Self(share)) } else { Err(Error::Sparsity(share)) }
    }

    /// The share as a number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = Error;
    fn try_from(share: f64) -> Result<Self, Error> {
        Self::new(share)
    }
}

impl From<Sparsity> for f64 {
    fn from(sparsity: Sparsity) -> Self {
        sparsity.0
    }
}

impl std::fmt::Display for Sparsity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} %", self.0 * 100.0)
    }
}
