//! The mixture-of-experts block.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use moeprune_core::{Activation, LinearId, MoeSpec, Routing, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    mlp::{GatedMlp, MlpShape},
    ops::{self, RowSum},
    routing::Routes,
};

/// Gives the block its experts, one at a time: the block routes first, then asks for each expert
/// that got tokens, ascending, and lets go of it before the next.
pub(crate) trait ExpertProvider: std::fmt::Debug + Send + Sync {
    fn expert(&self, index: usize) -> Result<Arc<GatedMlp>, Error>;
}

/// All experts of a layer in memory.
#[derive(Debug)]
struct Resident(Vec<Arc<GatedMlp>>);

impl ExpertProvider for Resident {
    fn expert(&self, index: usize) -> Result<Arc<GatedMlp>, Error> {
        Ok(Arc::clone(&self.0[index]))
    }
}

/// `Σ rᵢ · expertᵢ(x)` over the experts chosen for each token.
#[derive(Debug)]
pub(crate) struct MoeBlock {
    layer: usize,
    experts: usize,
    top_k: usize,
    renormalize: bool,
    router: Linear,
    provider: Box<dyn ExpertProvider>,
}

impl MoeBlock {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        spec: &MoeSpec,
        activation: Activation,
    ) -> Result<Self, Error> {
        let renormalize = match spec.routing {
            Routing::SoftmaxTopK { renormalize } => renormalize,
            other => return Err(Error::Spec(format!("layer {layer}: no routing {other:?}"))),
        };
        if spec.experts == 0 || spec.top_k == 0 {
            return Err(Error::Spec(format!(
                "layer {layer}: {} experts, {} for each token; both must be at least 1",
                spec.experts, spec.top_k
            )));
        }
        let router = [(TensorId::linear(layer, LinearId::Router), spec.experts)];
        let shape = MlpShape { hidden, inner: spec.expert_inner, activation };
        let expert =
            |e| GatedMlp::load(weights, layer, |p| LinearId::Expert(e, p), shape).map(Arc::new);
        Ok(Self {
            layer,
            experts: spec.experts,
            top_k: spec.top_k,
            renormalize,
            // Half-precision logits can tie or swap where f32 ones do not.
            router: weights.in_type(ops::wide(weights.dtype)).linear(&router, hidden)?,
            provider: Box::new(Resident((0..spec.experts).map(expert).collect::<Result<_, _>>()?)),
        })
    }

    /// `[tokens, hidden]` to the same. For each token its experts are added in ascending order.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(LinearId::Router, x)?;
        let logits = self.router.forward(&x.to_dtype(ops::wide(x.dtype()))?)?;
        let routes = Routes::softmax_top_k(
            logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
            self.experts,
            self.top_k,
            self.renormalize,
            self.layer,
        )?;
        sink.routing(&routes.choice())?;
        let mut sum = RowSum::like(x)?;
        for (e, tokens, gates) in routes.by_expert().iter() {
            let expert = self.provider.expert(e)?;
            let input = ops::gather_rows(x, tokens)?;
            let output = expert.forward(&input, |p| LinearId::Expert(e, p), sink)?;
            sink.expert_output(e, &output, gates)?;
            sum.add(tokens, gates, &output)?;
        }
        sum.into_tensor()
    }
}
