//! What is pruned, how, and where: what every step of a layer's work reads.

use std::sync::{OnceLock, atomic::AtomicU64};

use moeprune_capture::{LayerObserver, ObserverOptions, TokenBlocks};
use moeprune_core::{
    ExpertRatio, InputHessian, LinearId, LinearShape, LinearView, MoeSpec, Observation, Promises,
    RoutedMass, Sparsity, TensorId, TensorSource,
};
use moeprune_model::Router;

use super::{
    in_place::MaskRequest,
    statistics::InputStatistics,
    worker::{Holds, Supply},
};
use crate::{Error, Execution, KeptExperts, Pipeline, finite::Finite, walk::Route};

/// The Linear of a trunk that reads what the experts add up to: it comes after them, all others before.
pub(super) const AFTER_EXPERTS: LinearId = MoeSpec::FROM_LATENT;

/// What is pruned, how, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerJob<'a> {
    pub(super) kept: &'a KeptExperts<'a>,
    pub(super) promises: Promises,
    pub(super) pipeline: &'a Pipeline,
    pub(super) execution: &'a Execution,
    /// Experts that have a ratio of their own.
    pub(super) expert_ratios: &'a [ExpertRatio],
    /// What was seen of the unpruned model, if that is there.
    pub(super) observed: Option<&'a Observation>,
}

impl<'a> LayerJob<'a> {
    /// The Linears of a layer that may be zeroed.
    pub(super) fn prunable(&self, layer: usize) -> Vec<LinearShape> {
        let mut linears = self.kept.spec().linears(layer);
        linears.retain(|linear| self.may_zero(linear));
        linears
    }

    fn may_zero(&self, linear: &LinearShape) -> bool {
        let routers_too = self.promises.zero_routers;
        linear.prunable || routers_too && linear.id == LinearId::Router
    }

    /// About the bytes of an expert's prunable weights.
    pub(super) fn expert_bytes(&self, layer: usize, expert: usize) -> usize {
        let linears = self.prunable(layer).into_iter().filter(|s| s.id.expert() == Some(expert));
        2 * linears.map(|shape| shape.parameters() as usize).sum::<usize>()
    }

    /// About the bytes of a layer's Linears.
    pub(super) fn weight_bytes(&self, layer: usize) -> u64 {
        2 * self.prunable(layer).iter().map(LinearShape::parameters).sum::<u64>()
    }

    pub(super) fn experts(&self, layer: usize) -> Vec<usize> {
        (0..self.kept.spec().layers[layer].moe().map_or(0, |moe| moe.experts)).collect()
    }

    pub(super) fn shape_of(&self, layer: usize, id: LinearId) -> Option<LinearShape> {
        let shape = self.kept.spec().part(TensorId::linear(layer, id))?.linear_shape()?;
        self.may_zero(&shape).then_some(shape)
    }

    /// The Linear under which the inputs of an expert are kept.
    pub(super) fn expert_input(&self, layer: usize, expert: usize) -> Option<LinearShape> {
        let moe = self.kept.spec().layers[layer].moe()?;
        let id = LinearId::Expert(expert, moe.expert.input());
        self.kept.spec().part(TensorId::linear(layer, id))?.linear_shape()
    }

    /// Routing is of no use any more once the experts are chosen.
    pub(super) fn observer(&self, layer: usize, hessians: bool) -> Result<LayerObserver, Error> {
        let options = ObserverOptions { routing: false, inputs: true, hessians };
        Ok(LayerObserver::new(self.kept.spec(), layer, options)?)
    }

    /// The router of a layer before it loses experts, if the weights of a token's experts then have
    /// another sum.
    pub(super) fn router_with_other_mass(&self, layer: usize) -> Result<Option<Router>, Error> {
        let source = self.kept.source();
        if !self.changes_mass(layer) {
            return Ok(None);
        }
        let (weights, compute) = (Finite(source), self.execution.compute());
        Ok(Some(Router::read(&weights, source.spec(), layer, compute)?))
    }

    fn changes_mass(&self, layer: usize) -> bool {
        let moe = self.kept.source().spec().layers[layer].moe();
        moe.is_some_and(|moe| !moe.router.keeps_mass()) && self.kept.loses_experts(layer)
    }

    /// What the experts of a token weigh together before experts go, where that changes and was observed.
    pub(super) fn observed_mass(&self, layer: usize) -> Option<RoutedMass> {
        let routing = self.observed?.layers.get(layer)?.routing.as_ref()?;
        let was_observed = routing.tokens > 0 && !routing.gate_sums.is_empty();
        let is_known = self.changes_mass(layer) && was_observed;
        let mean = routing.gate_sums.iter().sum::<f64>() / routing.tokens as f64;
        is_known.then_some(RoutedMass { before: mean, after: None })
    }

    /// The ratio of a Linear, given its layer's.
    pub(super) fn ratio_of(&self, layer: usize, linear: LinearId, ratio: Sparsity) -> Sparsity {
        let Some(expert) = linear.expert() else { return ratio };
        let source = self.kept.survivor(layer, expert).map_or(expert, |s| s.source);
        let own = self.expert_ratios.iter().find(|e| (e.layer, e.expert) == (layer, source));
        own.and_then(|own| Sparsity::new(own.ratio).ok()).unwrap_or(ratio)
    }

    /// What a worker on the model that is left works with, its weights read from `source`.
    pub(super) fn supply(&self, source: &'a dyn TensorSource) -> Supply<'a> {
        let LayerJob { kept, pipeline, execution, .. } = *self;
        // Zeros go into the codes, which no device has.
        let on_device = execution.compute().holds_stored() && !kept.source().has_weights_in_codes();
        let holds = if on_device { Holds::Loaded } else { Holds::Stored };
        Supply { source, spec: kept.spec(), weights: &pipeline.weights, execution, holds }
    }

    /// A walk over the layers of the model that is left.
    pub(super) fn route<'r>(
        &'r self,
        step: &'r str,
        blocks: Option<&'r TokenBlocks>,
        work: &'r [u64],
    ) -> Route<'r> {
        let LayerJob { kept, execution, .. } = *self;
        let (spec, micro_batch) = (kept.spec(), execution.micro_batch());
        Route { source: kept, spec, blocks, micro_batch, execution, step, work }
    }

    pub(super) fn masking<'m>(
        &self,
        linear: LinearView<'m>,
        hessian: Option<&'m InputHessian>,
        ratio: Sparsity,
    ) -> MaskRequest<'m>
    where
        'a: 'm,
    {
        let LayerJob { pipeline, execution, .. } = *self;
        let weights = &pipeline.weights;
        let (without_zero, zero_before) = (AtomicU64::new(0), OnceLock::new());
        MaskRequest { linear, hessian, ratio, weights, execution, without_zero, zero_before }
    }
}

/// A Linear and what reached it.
pub(super) fn view<'a>(
    layer: usize,
    shape: LinearShape,
    moments: &InputStatistics<'a>,
) -> Result<LinearView<'a>, Error> {
    let LinearShape { id, rows, cols, .. } = shape;
    Ok(LinearView { layer, id, rows, cols, inputs: moments.of(&shape)? })
}
