//! From the activations of a layer to the experts of each token.

use candle_core::{DType, Tensor};
use moeprune_core::{GateSide, LinearId, ModelSpec, MoeSpec, RouterInput, TensorId, TensorSource};

use crate::{
    ActivationSink, Compute, Error,
    linear::{Linear, Weights},
    norm::RmsNorm,
    ops,
    routing::{ExpertTokens, Routes, Rule},
};

/// The router of a layer.
#[derive(Debug)]
pub struct Router {
    layer: usize,
    /// Of what it reads, if that is not what experts read.
    norm: Option<RmsNorm>,
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
        Self::load(Weights { source, compute }, layer, spec, moe)
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
        spec: &ModelSpec,
        moe: &MoeSpec,
    ) -> Result<Self, Error> {
        let rule = Rule::load(weights, layer, moe)?;
        let id = [(TensorId::linear(layer, LinearId::Router), moe.experts)];
        let norm = match moe.router.input() {
            RouterInput::Experts => None,
            RouterInput::ScaledStream => {
                let scale = TensorId::Layer(layer, RouterInput::SCALE);
                let factor = 1.0 / (spec.hidden as f64).sqrt();
                let norm = RmsNorm::load_wide(weights, scale, spec.hidden, spec.norm_eps)?;
                Some(norm.times(factor)?)
            }
        };
        let (weight, side) = (weights.linear(&id, spec.hidden)?, moe.router.gate_side());
        Ok(Self { layer, norm, weight, rule, side })
    }

    /// `read` is what experts read, `[tokens, hidden]`, and `normed` the same after their norm.
    pub(crate) fn route(
        &self,
        read: &Tensor,
        normed: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<ExpertTokens, Error> {
        let own = match &self.norm {
            Some(norm) => Some(norm.forward(read)?),
            None => None,
        };
        let x = own.as_ref().unwrap_or(normed);
        sink.linear_input(LinearId::Router, x)?;
        let routes = self.routes(x)?;
        sink.routing(&routes.choice())?;
        Ok(routes.by_expert())
    }

    /// The experts of each token, for what the router reads.
    pub(crate) fn by_expert(&self, x: &Tensor) -> Result<ExpertTokens, Error> {
        Ok(self.routes(x)?.by_expert())
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
