//! What a model is made of: the facts a forward pass and the accounting need, with no tensor name
//! in them.

use serde::Serialize;

use crate::{AttentionProjection, LinearId, MlpProjection};

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
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Base of the rotary embedding, half-split layout.
    pub rope_theta: f64,
    /// Attention looks at most this many positions back, when set.
    pub sliding_window: Option<usize>,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f64,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// Activation of every gated MLP.
    pub activation: Activation,
    /// The decoder layers in order.
    pub layers: Vec<LayerSpec>,
}

/// Activation function of a gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LayerSpec {
    /// What follows attention.
    pub feed_forward: FeedForward,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FeedForward {
    /// A gated MLP of this inner width, read through the post-attention norm.
    Dense {
        /// Inner width.
        inner: usize,
    },
    /// A mixture of experts.
    Moe(MoeSpec),
}

/// A mixture-of-experts block.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct MoeSpec {
    /// Routed experts in this layer.
    pub experts: usize,
    /// Experts a token goes through; never above `experts`.
    pub top_k: usize,
    /// Inner width of an expert.
    pub expert_inner: usize,
    /// How the router's logits become expert weights.
    pub routing: Routing,
    /// Which hidden state the block reads.
    pub input: MoeInput,
    /// Inner width of the dense MLP that runs beside the experts (Arctic), if there is one.
    pub residual_inner: Option<usize>,
}

/// How logits become the weights of the chosen experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Routing {
    /// Softmax over all experts in f32, then the `top_k` largest.
    SoftmaxTopK {
        /// Whether the chosen probabilities are divided by their sum.
        renormalize: bool,
    },
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

/// A Linear of a layer and the shape of its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LinearShape {
    /// Which Linear.
    pub id: LinearId,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

impl LinearShape {
    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }
}

impl LayerSpec {
    /// The MoE block, if the layer has one.
    #[must_use]
    pub fn moe(&self) -> Option<&MoeSpec> {
        match &self.feed_forward {
            FeedForward::Moe(moe) => Some(moe),
            FeedForward::Dense { .. } => None,
        }
    }
}

impl ModelSpec {
    /// Every Linear of a layer in the order of [`LinearId`], the router among them.
    ///
    /// # Panics
    /// If `layer` is not below the number of layers.
    #[must_use]
    pub fn linears(&self, layer: usize) -> Vec<LinearShape> {
        use AttentionProjection::{Key, Output, Query, Value};
        let (hidden, q, kv) =
            (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut linears = Vec::new();
        let mut push = |id, rows, cols| linears.push(LinearShape { id, rows, cols });
        push(LinearId::Attention(Query), q, hidden);
        push(LinearId::Attention(Key), kv, hidden);
        push(LinearId::Attention(Value), kv, hidden);
        push(LinearId::Attention(Output), hidden, q);
        let mut mlp = |id: &dyn Fn(MlpProjection) -> LinearId, inner: usize| {
            push(id(MlpProjection::Gate), inner, hidden);
            push(id(MlpProjection::Up), inner, hidden);
            push(id(MlpProjection::Down), hidden, inner);
        };
        match &self.layers[layer].feed_forward {
            FeedForward::Dense { inner } => mlp(&LinearId::Dense, *inner),
            FeedForward::Moe(moe) => {
                if let Some(inner) = moe.residual_inner {
                    mlp(&LinearId::Residual, inner);
                }
                for e in 0..moe.experts {
                    mlp(&|p| LinearId::Expert(e, p), moe.expert_inner);
                }
                push(LinearId::Router, moe.experts, hidden);
            }
        }
        linears.sort_by_key(|l| l.id);
        linears
    }
}
