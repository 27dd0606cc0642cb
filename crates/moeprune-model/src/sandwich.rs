//! Norms after the blocks of a layer.

use std::sync::Arc;

use candle_core::Tensor;
use moeprune_core::{LayerTensor, ModelSpec, SandwichNorms, TensorId};

use crate::{Error, linear::Weights, norm::RmsNorm, ops};

/// The norms of what a layer's blocks make, and what its output is multiplied by.
#[derive(Debug)]
pub(crate) struct Sandwich {
    attention: RmsNorm,
    feed_forward: Arc<RmsNorm>,
    /// Of the MLP beside the experts, and of the experts.
    beside: Option<(RmsNorm, Arc<RmsNorm>)>,
    scale: f64,
}

/// What the experts' sum still goes through before it is the layer's output.
#[derive(Debug, Clone)]
pub(crate) struct AfterExperts {
    /// The state after attention.
    stream: Tensor,
    /// What the MLP beside the experts made, normed, and the norm of what the experts make.
    beside: Option<(Tensor, Arc<RmsNorm>)>,
    norm: Arc<RmsNorm>,
    multiplier: f64,
    scale: f64,
}

impl Sandwich {
    /// `beside`: whether an MLP stands beside the experts of layer `layer`.
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        norms: SandwichNorms,
        beside: bool,
    ) -> Result<Self, Error> {
        let norm = |tensor: LayerTensor| {
            RmsNorm::of_model(weights, TensorId::Layer(layer, tensor), spec.hidden, spec)
        };
        let scale = TensorId::Layer(layer, SandwichNorms::OUTPUT_SCALE);
        let scale = match norms.output_scale {
            true => weights.values(scale, &[1])?.first().map_or(1.0, |&scale| f64::from(scale)),
            false => 1.0,
        };
        let beside = match beside {
            true => {
                let of_experts = Arc::new(norm(SandwichNorms::EXPERTS_OUTPUT)?);
                Some((norm(SandwichNorms::RESIDUAL_OUTPUT)?, of_experts))
            }
            false => None,
        };
        Ok(Self {
            attention: norm(SandwichNorms::ATTENTION_OUTPUT)?,
            feed_forward: Arc::new(norm(SandwichNorms::FEED_FORWARD_OUTPUT)?),
            beside,
            scale,
        })
    }

    /// What attention adds.
    pub(crate) fn attention(&self, attended: &Tensor) -> Result<Tensor, Error> {
        self.attention.forward(attended)
    }

    /// The output of a layer without experts.
    pub(crate) fn dense(
        &self,
        stream: &Tensor,
        output: &Tensor,
        multiplier: f64,
    ) -> Result<Tensor, Error> {
        let after = AfterExperts {
            stream: stream.clone(),
            beside: None,
            norm: Arc::clone(&self.feed_forward),
            multiplier,
            scale: self.scale,
        };
        after.finish(output)
    }

    /// For a layer with experts; `residual` is what the MLP beside them makes.
    pub(crate) fn after_experts(
        &self,
        stream: Tensor,
        residual: Option<Tensor>,
        multiplier: f64,
    ) -> Result<AfterExperts, Error> {
        let beside = match (residual, &self.beside) {
            (Some(residual), Some((of_residual, of_experts))) => {
                Some((of_residual.forward(&residual)?, Arc::clone(of_experts)))
            }
            _ => None,
        };
        let norm = Arc::clone(&self.feed_forward);
        Ok(AfterExperts { stream, beside, norm, multiplier, scale: self.scale })
    }
}

impl AfterExperts {
    /// The layer's output, given what the experts make together.
    pub(crate) fn finish(self, experts: &Tensor) -> Result<Tensor, Error> {
        let block = match &self.beside {
            None => self.norm.forward(experts)?,
            Some((beside, norm)) => {
                self.norm.forward(&ops::add(beside, &norm.forward(experts)?)?)?
            }
        };
        let sum = ops::add(&self.stream, &ops::scaled(block, self.multiplier)?)?;
        ops::scaled(sum, self.scale)
    }
}
