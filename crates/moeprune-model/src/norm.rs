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

    /// As [`forward`](Self::forward) for rows that hold several vectors, one after the other.
    pub(crate) fn forward_in_pieces(&self, x: &Tensor) -> Result<Tensor, Error> {
        let normed = self.forward(&x.contiguous()?.reshape(((), self.weight.dim(0)?))?)?;
        Ok(normed.reshape(x.shape())?)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        ops::rms_norm(x, &self.weight, self.eps)
    }
}
