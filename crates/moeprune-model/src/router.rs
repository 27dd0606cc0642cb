//! From the activations of a layer to the experts of each token.

use candle_core::{DType, Tensor};
use moeprune_core::{GateSide, LinearId, ModelSpec, MoeSpec, TensorId, TensorSource};

use crate::{
    ActivationSink, Compute, Error,
    linear::{Linear, Weights},
    ops,
    routing::{ExpertTokens, Routes, Rule},
};

/// The router of a layer.
#[derive(Debug)]
pub struct Router {
    layer: usize,
    weight: Linear,
    rule: Rule<f32>,
    side: GateSide,
}

impl Router {
    /// Reads the router of layer `layer` of a model, and nothing else, to where it will run.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Shape`] name the tensor; [`Error::Spec`] if the layer has no router
    /// that can be run.
    pub fn read(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let moe = spec.layers.get(layer).and_then(|parts| parts.moe());
        let moe = moe.ok_or_else(|| Error::Spec(format!("layer {layer} has no router")))?;
        Self::load(Weights { source, compute }, layer, spec.hidden, moe)
    }

    /// The sum of the weights of all tokens' experts, for what the router reads, `[tokens, hidden]`: what
    /// a sink receives as the input of [`LinearId::Router`].
    ///
    /// # Errors
    /// If a tensor operation fails or a logit is not finite.
    pub fn mass(&self, x: &Tensor) -> Result<f64, Error> {
        Ok(self.routes(x)?.choice().weights.iter().map(|&weight| f64::from(weight)).sum())
    }

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
        let routes = self.routes(x)?;
        sink.routing(&routes.choice())?;
        Ok(routes.by_expert())
    }

    fn routes(&self, x: &Tensor) -> Result<Routes, Error> {
        // Half-precision logits can tie or swap where f32 ones do not.
        let logits = self.weight.forward(&x.to_dtype(ops::wide(x.dtype()))?)?;
        let logits = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Routes::choose(logits, &self.rule, self.layer)
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
