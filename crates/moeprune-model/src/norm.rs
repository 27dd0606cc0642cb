//! Norms.

use candle_core::Tensor;
use moeprune_core::{LayerTensor, ModelSpec, NormWeights, TensorId};

use crate::{Error, linear::Weights, ops};

/// `x / sqrt(mean(x²) + eps) ∘ weight` (Zhang and Sennrich 2019), in f32 or wider.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// In the type of hidden states, or in a wider one: then the norm is taken in that.
    weight: Tensor,
    eps: f64,
    /// Of a LayerNorm (Ba et al. 2016), which takes away the mean first.
    bias: Option<Tensor>,
}

impl RmsNorm {
    pub(crate) fn load(
        weights: Weights<'_>,
        id: TensorId,
        hidden: usize,
        eps: f64,
    ) -> Result<Self, Error> {
        Ok(Self { weight: weights.vector(id, hidden)?, eps, bias: None })
    }

    /// The same as a LayerNorm with this bias.
    pub(crate) fn with_bias(
        self,
        weights: Weights<'_>,
        bias: TensorId,
        width: usize,
    ) -> Result<Self, Error> {
        Ok(Self { bias: Some(weights.vector(bias, width)?), ..self })
    }

    /// With the epsilon of the model, and its weight stored as the model's are.
    pub(crate) fn of_model(
        weights: Weights<'_>,
        id: TensorId,
        width: usize,
        spec: &ModelSpec,
    ) -> Result<Self, Error> {
        match spec.norm_weights {
            NormWeights::Factor => Self::load(weights, id, width, spec.norm_eps),
            NormWeights::MinusOne => {
                let norm = Self::load_wide(weights, id, width, spec.norm_eps)?;
                Ok(Self { weight: (norm.weight + 1.0)?, ..norm })
            }
            NormWeights::WithBias => {
                let bias = bias_of(id)
                    .ok_or_else(|| Error::Spec(format!("the {id} is not known to have a bias")))?;
                Self::load(weights, id, width, spec.norm_eps)?.with_bias(weights, bias, width)
            }
        }
    }

    /// In f32 or wider, also where hidden states are narrower.
    pub(crate) fn load_wide(
        weights: Weights<'_>,
        id: TensorId,
        width: usize,
        eps: f64,
    ) -> Result<Self, Error> {
        Ok(Self { weight: weights.wide(id, &[width])?, eps, bias: None })
    }

    /// The same with its output multiplied by `factor`.
    pub(crate) fn times(self, factor: f64) -> Result<Self, Error> {
        Ok(Self { weight: (self.weight * factor)?, ..self })
    }

    /// Without a weight.
    pub(crate) fn unweighted(weights: Weights<'_>, width: usize, eps: f64) -> Result<Self, Error> {
        let compute = weights.compute;
        let weight = Tensor::ones(width, compute.dtype(), compute.device())?;
        Ok(Self { weight, eps, bias: None })
    }

    /// As [`forward`](Self::forward) for rows that hold several vectors, one after the other.
    pub(crate) fn forward_in_pieces(&self, x: &Tensor) -> Result<Tensor, Error> {
        let normed = self.forward(&x.contiguous()?.reshape(((), self.weight.dim(0)?))?)?;
        Ok(normed.reshape(x.shape())?)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        if let Some(bias) = &self.bias {
            return ops::layer_norm(x, &self.weight, bias, self.eps);
        }
        if x.dtype() == self.weight.dtype() {
            return ops::rms_norm(x, &self.weight, self.eps);
        }
        let normed = ops::rms_norm(&x.to_dtype(self.weight.dtype())?, &self.weight, self.eps)?;
        Ok(normed.to_dtype(x.dtype())?)
    }
}

/// The bias of a norm that has one.
fn bias_of(norm: TensorId) -> Option<TensorId> {
    match norm {
        TensorId::FinalNorm => Some(TensorId::FinalNormBias),
        TensorId::Layer(layer, LayerTensor::InputNorm) => {
            Some(TensorId::Layer(layer, LayerTensor::InputNormBias))
        }
        TensorId::Layer(layer, LayerTensor::PostAttentionNorm) => {
            Some(TensorId::Layer(layer, LayerTensor::PostAttentionNormBias))
        }
        _ => None,
    }
}
