//! Router distance and co-activation together.

use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError};

use crate::{CoActivation, Error, RouterDistance};

/// `λ₁ · r_ij + λ₂ · d_ij`, with `r` a [`RouterDistance`] and `d` a [`CoActivation`] distance: by
/// default `λ₁‖g_i − g_j‖ − λ₂ A_ij / mean(A)`, both weights 1.
///
/// A part whose weight is 0 is not computed, so with `λ₂ = 0` no observation is needed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct Mixed {
    /// The first part.
    pub router: RouterDistance,
    /// `λ₁`, at least 0.
    pub router_weight: f64,
    /// The second part.
    pub coactivation: CoActivation,
    /// `λ₂`, at least 0.
    pub coactivation_weight: f64,
}

impl Default for Mixed {
    fn default() -> Self {
        Self {
            router: RouterDistance::default(),
            router_weight: 1.0,
            coactivation: CoActivation::default(),
            coactivation_weight: 1.0,
        }
    }
}

impl ExpertSimilarity for Mixed {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        for (name, value) in [
            ("router_weight", self.router_weight),
            ("coactivation_weight", self.coactivation_weight),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(Error::Weight { name, value }.into());
            }
        }
        let part = |weight: f64, similarity: &dyn ExpertSimilarity| {
            if weight == 0.0 { Ok(None) } else { similarity.distances(layer).map(Some) }
        };
        let router = part(self.router_weight, &self.router)?;
        let coactivation = part(self.coactivation_weight, &self.coactivation)?;
        let weighted = |weight: f64, part: &Option<DistanceMatrix>, i, j| {
            part.as_ref().map_or(0.0, |distances| weight * distances.at(i, j))
        };
        Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| {
            weighted(self.router_weight, &router, i, j)
                + weighted(self.coactivation_weight, &coactivation, i, j)
        })?)
    }

    fn needs_observation(&self) -> bool {
        self.coactivation_weight != 0.0
    }
}
