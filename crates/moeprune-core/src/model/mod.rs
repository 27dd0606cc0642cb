//! What a model is made of: a list of parts, with no tensor name in it.
//!
//! A [`ModelSpec`] is layers, a layer is an attention and a feed-forward block, and each is one kind
//! of a closed list that says which tensors it has ([`Part`]). Parameter counts, the shapes a file
//! must have, what shrinks with the experts and what may be zeroed are read off the parts.

mod attention;
mod expert_groups;
mod experts;
mod extra;
mod mlp;
mod multipliers;
mod norm;
mod opaque;
mod part;
mod rotary;
mod router;
mod sandwich;
mod undecoded;

use serde::Serialize;

pub use self::{
    attention::{
        AttentionBiases, AttentionSpec, DeltaProjections, GatedDeltaNet, GroupedAttention,
        KimiDeltaAttention, LatentAttention, LightningIndexer, Mamba2, QueryKeyNorm,
        QueryTemperature, Reach, ShortConvolution, ValueSource,
    },
    experts::{MoeInput, MoeSpec, SharedSpec},
    extra::{ExtraLayers, ExtraPolicy},
    mlp::{Activation, ClampedSwiglu, MlpSpec},
    multipliers::Multipliers,
    norm::NormWeights,
    opaque::OpaqueTensor,
    part::{LinearShape, Part},
    rotary::{Llama3Scaling, LongRopeScaling, RotaryScaling, RotarySpec, RotaryStyle, YarnScaling},
    router::{
        CorrectionBias, ExpertGroups, GateSide, GroupScore, OpaqueRouter, RouterInput, RouterSpec,
        Score, ScoredRouter, SparseMixer,
    },
    sandwich::{LayerNorms, SandwichNorms},
    undecoded::Undecoded,
};
use crate::{LayerTensor, LinearId, TensorId};

/// A decoder-only transformer with mixture-of-experts layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by a family's parser")]
pub struct ModelSpec {
    /// Name of the family whose descriptor was used, for example `arctic`.
    pub family: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens, or the longest for which the angles of its
    /// rotary positions are known.
    pub max_positions: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f64,
    /// How the weights of norms are stored.
    pub norm_weights: NormWeights,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// Whether logits have a bias, `[vocab]`.
    pub head_bias: bool,
    /// What the outputs of blocks are multiplied by.
    pub multipliers: Multipliers,
    /// Logits become `cap · tanh(logits / cap)`; `None`: they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_cap: Option<f64>,
    /// The decoder layers in order.
    pub layers: Vec<LayerSpec>,
    /// Layers behind the decoder's, such as those that predict several tokens at once; their numbers
    /// go on from the decoder's last.
    pub extra: Option<ExtraLayers>,
    /// Of what the decoder needs, the first that is not decoded; such a model is cut and not run. `None`:
    /// all can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecoded: Option<Undecoded>,
    /// Whether experts are among what is not decoded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undecoded_experts: bool,
}

/// One decoder layer: attention, a feed-forward block, or both. Each adds to the residual stream what it makes of that
/// stream after a norm: the first block of a layer reads through the input norm, a second
/// through the post-attention norm.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LayerSpec {
    /// How tokens see each other.
    pub attention: AttentionSpec,
    /// What follows attention.
    pub feed_forward: FeedForward,
    /// Which norms stand around the two.
    #[serde(skip_serializing_if = "LayerNorms::is_before")]
    pub norms: LayerNorms,
    /// Tensors that belong to none of the two and that no norm of the default block is.
    pub other: Vec<OpaqueTensor>,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FeedForward {
    /// One MLP.
    Dense(MlpSpec),
    /// A mixture of experts.
    Moe(MoeSpec),
    /// The layer has none.
    None,
}

impl LayerSpec {
    /// With norms before both blocks and no other tensors.
    #[must_use]
    pub fn new(attention: AttentionSpec, feed_forward: FeedForward) -> Self {
        Self { attention, feed_forward, norms: LayerNorms::Before, other: Vec::new() }
    }

    /// The MoE block, if the layer has one.
    #[must_use]
    pub fn moe(&self) -> Option<&MoeSpec> {
        match &self.feed_forward {
            FeedForward::Moe(moe) => Some(moe),
            FeedForward::Dense(_) | FeedForward::None => None,
        }
    }

    /// Whether the layer has both attention and a feed-forward block, and so two norms.
    #[must_use]
    pub fn has_two_blocks(&self) -> bool {
        self.attention != AttentionSpec::None && self.feed_forward != FeedForward::None
    }

    /// The norm before the feed-forward block, if there is such a block.
    #[must_use]
    pub fn feed_forward_norm(&self) -> LayerTensor {
        match self.attention {
            AttentionSpec::None => LayerTensor::InputNorm,
            _ => LayerTensor::PostAttentionNorm,
        }
    }

    /// Everything of the layer but its experts: norms, then attention, router and MLPs, then what
    /// is no Linear. `layer` is its number in `model`.
    fn trunk_parts(&self, layer: usize, model: &ModelSpec) -> Vec<Part> {
        let hidden = model.hidden;
        let mut parts = match self.norms {
            LayerNorms::Named => Vec::new(),
            _ => norm::parts(layer, model, self.has_two_blocks()),
        };
        if let LayerNorms::Around(norms) = self.norms {
            let beside = self.moe().is_some_and(|moe| moe.residual.is_some());
            parts.extend(norms.parts(layer, hidden, beside));
        }
        parts.extend(self.attention.parts(layer, hidden));
        match &self.feed_forward {
            FeedForward::Dense(mlp) => parts.extend(mlp.parts(layer, hidden, LinearId::Dense)),
            FeedForward::Moe(moe) => parts.extend(moe.trunk_parts(layer, hidden)),
            FeedForward::None => {}
        }
        parts.extend(self.other.iter().map(|tensor| tensor.part(layer)));
        parts.sort_by_key(|part| part.id);
        parts
    }

    /// The parts of all experts, or none.
    fn expert_parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let Some(moe) = self.moe() else { return Vec::new() };
        (0..moe.experts).flat_map(|e| moe.expert_parts(layer, hidden, e)).collect()
    }
}

impl ModelSpec {
    /// Every part of the decoder: embedding, final norm and head, then layer by layer. Those of the
    /// layers behind it are its [`extra_parts`](Self::extra_parts).
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = self.ends();
        for layer in 0..self.layers.len() {
            parts.extend(self.layer_parts(layer));
        }
        parts
    }

    /// The parts outside of the layers.
    fn ends(&self) -> Vec<Part> {
        let table = || vec![self.vocab, self.hidden];
        let mut parts = vec![
            Part::whole(TensorId::Embedding, table()),
            Part::whole(TensorId::FinalNorm, vec![self.hidden]),
        ];
        if self.norm_weights == NormWeights::WithBias {
            parts.push(Part::whole(TensorId::FinalNormBias, vec![self.hidden]));
        }
        if !self.tied_embeddings {
            parts.push(Part::whole(TensorId::LmHead, table()));
        }
        if self.head_bias {
            parts.push(Part::whole(TensorId::LmHeadBias, vec![self.vocab]));
        }
        parts
    }

    /// Every part of a layer, of the decoder's or behind them, in the order of its [`TensorId`]; none
    /// if there is no such layer.
    #[must_use]
    pub fn layer_parts(&self, layer: usize) -> Vec<Part> {
        let Some(spec) = self.layer(layer) else { return Vec::new() };
        let mut parts = spec.trunk_parts(layer, self);
        parts.extend(spec.expert_parts(layer, self.hidden));
        parts.sort_by_key(|part| part.id);
        parts
    }

    /// One part; `None` if the model has no such.
    #[must_use]
    pub fn part(&self, id: TensorId) -> Option<Part> {
        let TensorId::Layer(layer, _) = id else {
            return self.ends().into_iter().find(|part| part.id == id);
        };
        let spec = self.layer(layer)?;
        let parts = match (id.expert(), spec.moe()) {
            (Some(e), Some(moe)) if e < moe.experts => moe.expert_parts(layer, self.hidden, e),
            (Some(_), _) => return None,
            (None, _) => spec.trunk_parts(layer, self),
        };
        parts.into_iter().find(|part| part.id == id)
    }

    /// The same model with the matrices of all experts in place of what is stored of them in a form that
    /// is not decoded ([`MoeSpec::opaque`]): what the model is, however it is stored.
    #[must_use]
    pub fn decoded(&self) -> Self {
        let mut decoded = self.clone();
        decoded.undecoded = None;
        decoded.undecoded_experts = false;
        let behind = decoded.extra.iter_mut().flat_map(|extra| &mut extra.layers);
        for layer in decoded.layers.iter_mut().chain(behind) {
            if let FeedForward::Moe(moe) = &mut layer.feed_forward {
                moe.opaque.clear();
            }
        }
        decoded
    }

    /// Whether what is stored of a decoder layer's experts is in a form that is not decoded: their weights
    /// cannot be averaged or compared. Whether anything is not decoded that the model needs to run is
    /// another question ([`undecoded`](Self::undecoded)).
    #[must_use]
    pub fn has_opaque_experts(&self) -> bool {
        self.undecoded_experts
            || self.layers.iter().filter_map(LayerSpec::moe).any(|moe| !moe.opaque.is_empty())
    }

    /// The tensors, each `[hidden]`, that a layer's router has its input multiplied by after it was
    /// normalised; none if the layer has no experts, or its norms are not known.
    #[must_use]
    pub fn router_scales(&self, layer: usize) -> Vec<TensorId> {
        let Some(spec) = self.layer(layer) else { return Vec::new() };
        let Some(moe) = spec.moe() else { return Vec::new() };
        let scale = match moe.router.input() {
            RouterInput::ScaledStream => RouterInput::SCALE,
            RouterInput::Experts if spec.norms == LayerNorms::Named => return Vec::new(),
            RouterInput::Experts => spec.feed_forward_norm(),
        };
        vec![TensorId::Layer(layer, scale)]
    }

    /// Longest sequence that can be run where layers hand on hidden states and nothing else: the model's
    /// positions, or as many as an indexer selects if a layer takes over what another one selected.
    /// Up to that length all keys are selected.
    #[must_use]
    pub fn longest_streamed(&self) -> usize {
        let taken_over = self.layers.iter().filter_map(|layer| match &layer.attention {
            AttentionSpec::Latent(latent) => latent.indexer.as_ref(),
            _ => None,
        });
        let selected = taken_over.filter(|indexer| indexer.shared).map(|indexer| indexer.top_k);
        selected.fold(self.max_positions, usize::min)
    }

    /// Every Linear of a layer in the order of [`LinearId`], the router among them; none if there
    /// is no such layer.
    #[must_use]
    pub fn linears(&self, layer: usize) -> Vec<LinearShape> {
        self.layer_parts(layer).iter().filter_map(Part::linear_shape).collect()
    }
}
