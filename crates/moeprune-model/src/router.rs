//! From the activations of a layer to the experts of each token.

use candle_core::{DType, Tensor};
use moeprune_core::{LayerTensor, LinearId, MoeSpec, RouterSpec, ScoredRouter, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    ops,
    routing::{ExpertTokens, Routes, Rule},
    runnable,
};

/// The router of a layer.
#[derive(Debug)]
pub(crate) struct Router {
    layer: usize,
    weight: Linear,
    rule: Rule<f32>,
}

impl Router {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        spec: &MoeSpec,
    ) -> Result<Self, Error> {
        let rule = rule(weights, layer, spec)?;
        let id = [(TensorId::linear(layer, LinearId::Router), spec.experts)];
        Ok(Self { layer, weight: weights.linear(&id, hidden)?, rule })
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

    /// Its stored weight; `None` where it was widened.
    pub(crate) fn stored(&self) -> Result<Option<Tensor>, Error> {
        self.weight.stored()
    }
}

/// How the router of a layer chooses, with the vectors it needs.
pub(crate) fn rule(weights: Weights<'_>, layer: usize, spec: &MoeSpec) -> Result<Rule<f32>, Error> {
    let RouterSpec::Scored(router) = &spec.router else {
        return Err(runnable::opaque_router(layer));
    };
    if spec.experts == 0 || spec.top_k == 0 {
        return Err(Error::Spec(format!(
            "layer {layer}: {} experts, {} for each token; both must be at least 1",
            spec.experts, spec.top_k
        )));
    }
    check_groups(router, spec, layer)?;
    let vector = |is_there: bool, tensor| match is_there {
        true => weights.values(TensorId::Layer(layer, tensor), spec.experts).map(Some),
        false => Ok(None),
    };
    Ok(Rule {
        experts: spec.experts,
        top_k: spec.top_k,
        router: *router,
        bias: vector(router.bias, LayerTensor::Bias(LinearId::Router))?,
        correction: vector(router.correction_bias, LayerTensor::CorrectionBias)?,
        expert_scale: vector(router.expert_scale, LayerTensor::ExpertScale)?,
    })
}

fn check_groups(router: &ScoredRouter, spec: &MoeSpec, layer: usize) -> Result<(), Error> {
    let Some(groups) = router.groups else { return Ok(()) };
    let (count, selected) = (groups.count, groups.selected);
    let is_even = count > 0 && spec.experts.is_multiple_of(count);
    if is_even && selected <= count && spec.top_k <= selected * (spec.experts / count) {
        return Ok(());
    }
    Err(Error::Spec(format!(
        "layer {layer}: {} experts in {count} groups, of which {selected} are chosen for {} experts \
         of a token: groups must be of equal size, and those chosen have as many experts",
        spec.experts, spec.top_k
    )))
}
