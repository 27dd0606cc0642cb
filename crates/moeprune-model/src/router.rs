//! From the activations of a layer to the experts of each token.

use candle_core::{DType, Tensor};
use moeprune_core::{GateSide, LinearId, MoeSpec, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    ops,
    routing::{ExpertTokens, Routes, Rule},
};

/// The router of a layer.
#[derive(Debug)]
pub(crate) struct Router {
    layer: usize,
    weight: Linear,
    rule: Rule<f32>,
    side: GateSide,
}

impl Router {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        spec: &MoeSpec,
    ) -> Result<Self, Error> {
        let rule = Rule::load(weights, layer, spec)?;
        let id = [(TensorId::linear(layer, LinearId::Router), spec.experts)];
        let side = spec.router.gate_side();
        Ok(Self { layer, weight: weights.linear(&id, hidden)?, rule, side })
    }

    /// `x` is `[tokens, hidden]`.
    pub(crate) fn route(
        &self,
        x: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<ExpertTokens, Error> {
        sink.linear_input(LinearId::Router, x)?;
        // Half-precision logits can tie or swap where f32 ones do not.
        let logits = self.weight.forward(&x.to_dtype(ops::wide(x.dtype()))?)?;
        let logits = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let routes = Routes::choose(logits, &self.rule, self.layer)?;
        sink.routing(&routes.choice())?;
        Ok(routes.by_expert())
    }

    /// What of an expert the weights multiply.
    pub(crate) fn gate_side(&self) -> GateSide {
        self.side
    }

    /// Its stored weight; `None` where it was widened.
    pub(crate) fn stored(&self) -> Result<Option<Tensor>, Error> {
        self.weight.stored()
    }
}
