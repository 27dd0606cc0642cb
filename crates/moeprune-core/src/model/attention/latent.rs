//! Multi-head latent attention.

use serde::Serialize;

use super::LightningIndexer;
use crate::{
    AttentionProjection, LayerTensor, LinearId, PartName,
    model::{Part, RotarySpec},
};

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are made from one
/// narrow vector per token, the latent.
///
/// With `x` the layer's input after its norm, and norms written as functions:
///
/// ```text
/// query             = q_b(query_norm(q_a(x)))          or query(x) where query_rank is None
/// latent, rope key  = kv_a(x)                          the rope key serves all heads
/// keys, values      = kv_b(kv_norm(latent))            per head nope_dim, then value_dim
/// ```
///
/// A head of a query is `nope_dim` values and then `rope_dim` that turn with the position; its key is
/// `nope_dim` values of its own and then the rope key. The inner norms add [`NORM_EPS`](Self::NORM_EPS),
/// not the model's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LatentAttention {
    /// Heads, of queries, keys and values alike.
    pub heads: usize,
    /// Width of the queries' own latent; `None`: queries are made in one step.
    pub query_rank: Option<usize>,
    /// Width of the latent of keys and values.
    pub kv_rank: usize,
    /// Width of the part of a head that does not turn.
    pub nope_dim: usize,
    /// Width of the part of a head that turns.
    pub rope_dim: usize,
    /// Width of a head of the values.
    pub value_dim: usize,
    /// How the `rope_dim` turn; `None`: not at all.
    pub rotary: Option<RotarySpec>,
    /// Whether `q_a`, `kv_a` and the output have a bias.
    pub biases: bool,
    /// What selects the keys that a query sees; `None`: it sees all at or before it. Needs a latent of
    /// the queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexer: Option<LightningIndexer>,
}

impl LatentAttention {
    /// Added to the mean square in the two inner norms.
    pub const NORM_EPS: f64 = 1e-6;

    /// From the input to the queries' latent, `[query_rank, hidden]`.
    pub const Q_A: LinearId = LinearId::Named(PartName::constant("attention.q_a"));
    /// From the queries' latent to queries, `[heads · (nope_dim + rope_dim), query_rank]`.
    pub const Q_B: LinearId = LinearId::Named(PartName::constant("attention.q_b"));
    /// From the input to latent and rope key, `[kv_rank + rope_dim, hidden]`.
    pub const KV_A: LinearId = LinearId::Named(PartName::constant("attention.kv_a"));
    /// From the latent to keys and values, `[heads · (nope_dim + value_dim), kv_rank]`.
    pub const KV_B: LinearId = LinearId::Named(PartName::constant("attention.kv_b"));
    /// From the input to queries where they have no latent, `[heads · (nope_dim + rope_dim), hidden]`.
    pub const QUERY: LinearId = LinearId::Attention(AttentionProjection::Query);
    /// `[hidden, heads · value_dim]`
    pub const OUTPUT: LinearId = LinearId::Attention(AttentionProjection::Output);
    /// The weight of the norm of the queries' latent, `[query_rank]`.
    pub const QUERY_NORM: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.query_norm"));
    /// The weight of the norm of the latent, `[kv_rank]`.
    pub const KV_NORM: LayerTensor = LayerTensor::Named(PartName::constant("attention.kv_norm"));

    /// Width of one head of queries and keys.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    /// Width of all queries of a token.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim()
    }

    /// What scores are multiplied by, beside `1 / sqrt(head_dim)`.
    #[must_use]
    pub fn score_factor(&self) -> f64 {
        self.rotary.as_ref().map_or(1.0, |rotary| rotary.scaling.latent_score_factor())
    }

    /// The first of the matrices that read the layer's input, under which its statistics are kept.
    #[must_use]
    pub fn input(&self) -> LinearId {
        if self.query_rank.is_some() { Self::Q_A } else { Self::QUERY }
    }

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let part = |id, rows, cols| Part::linear(layer, id, rows, cols);
        let vector = |tensor, width| Part::of_layer(layer, tensor, vec![width]);
        let bias = |id, width| vector(LayerTensor::Bias(id), width);
        let (queries, latent) = (self.query_width(), self.kv_rank + self.rope_dim);
        let mut parts = match self.query_rank {
            Some(rank) => vec![
                part(Self::Q_A, rank, hidden),
                vector(Self::QUERY_NORM, rank),
                part(Self::Q_B, queries, rank),
            ],
            None => vec![part(Self::QUERY, queries, hidden)],
        };
        let keys_and_values = self.heads * (self.nope_dim + self.value_dim);
        parts.extend([
            part(Self::KV_A, latent, hidden).reading_with(self.input()),
            vector(Self::KV_NORM, self.kv_rank),
            part(Self::KV_B, keys_and_values, self.kv_rank),
            part(Self::OUTPUT, hidden, self.heads * self.value_dim),
        ]);
        if self.biases {
            parts.extend(self.query_rank.map(|rank| bias(Self::Q_A, rank)));
            parts.extend([bias(Self::KV_A, latent), bias(Self::OUTPUT, hidden)]);
        }
        if let (Some(indexer), Some(rank)) = (&self.indexer, self.query_rank) {
            parts.extend(indexer.parts(layer, hidden, rank));
        }
        parts
    }
}
