//! A mixture of experts, and what runs beside it.

use serde::Serialize;

use super::{MlpSpec, OpaqueTensor, Part, RouterSpec, norm};
use crate::{LayerTensor, LinearId, PartName, TensorId};

/// A mixture-of-experts block.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct MoeSpec {
    /// Routed experts in this layer.
    pub experts: usize,
    /// Experts a token goes through; never above `experts`.
    pub top_k: usize,
    /// How they are chosen.
    pub router: RouterSpec,
    /// What each routed expert is.
    pub expert: MlpSpec,
    /// What is stored of each routed expert in place of its matrices, in a form that is not decoded,
    /// as [`LayerTensor::OfExpert`] of expert 0. Such experts go and stay as they are, and nothing else.
    /// Empty: the matrices are stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opaque: Vec<OpaqueTensor>,
    /// Experts that every token goes through.
    pub shared: Vec<SharedSpec>,
    /// The dense MLP that runs beside the experts (Arctic), if there is one.
    pub residual: Option<MlpSpec>,
    /// Which hidden state the block reads.
    pub input: MoeInput,
    /// Width of what the routed experts read and write, if it is another than that of the residual
    /// stream ([`MoeSpec::TO_LATENT`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent: Option<usize>,
}

/// An expert that every token goes through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct SharedSpec {
    /// The expert.
    pub mlp: MlpSpec,
    /// Whether it is multiplied by a gate of its own, `[1, hidden]`.
    pub gate: bool,
}

/// Which hidden state an MoE block reads, through the post-attention norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MoeInput {
    /// The state after attention was added (Mixtral and most others).
    AfterAttention,
    /// The layer's input, before attention (Arctic): the block runs in parallel.
    LayerInput,
}

impl MoeSpec {
    /// What the routed experts read is made by, `[latent, hidden]`.
    pub const TO_LATENT: LinearId = LinearId::Named(PartName::constant("experts.to_latent"));
    /// What the sum of the routed experts' outputs goes through, `[hidden, latent]`.
    pub const FROM_LATENT: LinearId = LinearId::Named(PartName::constant("experts.from_latent"));

    /// Width of what a routed expert reads and writes, in a model that is `hidden` wide.
    #[must_use]
    pub fn expert_width(&self, hidden: usize) -> usize {
        self.latent.unwrap_or(hidden)
    }

    /// Everything of the block but its routed experts.
    #[must_use]
    pub fn trunk_parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let mut parts = self.router.parts(layer, hidden, self.experts);
        if let Some(residual) = &self.residual {
            parts.push(norm::residual(layer, hidden));
            parts.extend(residual.parts(layer, hidden, LinearId::Residual));
        }
        for (i, shared) in self.shared.iter().enumerate() {
            parts.extend(shared.mlp.parts(layer, hidden, |p| LinearId::Shared(i, p)));
            if shared.gate {
                parts.push(Part::of_layer(layer, LayerTensor::SharedGate(i), vec![1, hidden]));
            }
        }
        if let Some(latent) = self.latent {
            parts.push(Part::linear(layer, Self::TO_LATENT, latent, hidden));
            parts.push(Part::linear(layer, Self::FROM_LATENT, hidden, latent));
        }
        parts
    }

    /// The tensors of one routed expert.
    #[must_use]
    pub fn expert_parts(&self, layer: usize, hidden: usize, expert: usize) -> Vec<Part> {
        let mut parts =
            self.expert.parts(layer, self.expert_width(hidden), |p| LinearId::Expert(expert, p));
        if !self.opaque.is_empty() {
            parts.retain(|part| !matches!(part.id, TensorId::Layer(_, LayerTensor::Linear(_))));
            parts.extend(self.opaque.iter().map(|tensor| {
                let part = tensor.part(layer);
                Part { id: part.id.with_expert(expert), ..part }
            }));
        }
        parts
    }
}
