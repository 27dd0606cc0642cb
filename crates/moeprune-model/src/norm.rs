//! RMS norms.

use candle_core::Tensor;
use moeprune_core::TensorId;

use crate::{Error, linear::Weights, ops};

/// `x / sqrt(mean(x²) + eps) ∘ weight` (Zhang and Sennrich 2019), in f32 or wider.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn load(
        weights: Weights<'_>,
        id: TensorId,
        hidden: usize,
        eps: f64,
    ) -> Result<Self, Error> {
        Ok(Self { weight: weights.vector(id, hidden)?, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        ops::rms_norm(x, &self.weight, self.eps)
    }
}
