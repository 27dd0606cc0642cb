//! The lightning indexer: which keys a query sees.

use serde::Serialize;

use crate::{
    LayerTensor, PartName,
    model::{Part, RotarySpec},
};

/// The lightning indexer of DeepSeek Sparse Attention (DeepSeek-V3.2, arXiv 2512.02556): each query of
/// the attention sees the `top_k` keys at or before it that score highest here, or all if there are no more.
///
/// With `x` the layer's input after its norm, `c` the queries' latent after its norm, and the first
/// dimensions of queries and keys turned with the position:
///
/// ```text
/// queries  = query(c)                     heads of dim
/// key      = layer_norm(key(x))           one head of dim; adds NORM_EPS to the variance
/// weights  = weights(x)                   one number per head
/// score    = Σ over heads of  weight / sqrt(heads) · relu(query · key / sqrt(dim))
/// ```
///
/// Of keys with equal scores, those at lower positions are selected.
///
/// Its matrices are no decoder Linears: as a router's, their outputs only choose, which no
/// reconstruction of a layer's output sees, and they are small. They stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LightningIndexer {
    /// Heads of its queries.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Keys that a query sees at most.
    pub top_k: usize,
    /// How the first dimensions of a head turn; `None`: not at all.
    pub rotary: Option<RotarySpec>,
    /// Whether the layer has no indexer and takes over what the nearest layer before it selected that
    /// has one.
    pub shared: bool,
}

impl LightningIndexer {
    /// Added to the variance in the keys' norm.
    pub const NORM_EPS: f64 = 1e-6;

    /// From the queries' latent to queries, `[heads · dim, query_rank]`.
    pub const QUERY: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.indexer_query"));
    /// From the input to the key, `[dim, hidden]`.
    pub const KEY: LayerTensor = LayerTensor::Named(PartName::constant("attention.indexer_key"));
    /// From the input to the weights of the heads, `[heads, hidden]`.
    pub const WEIGHTS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.indexer_weights"));
    /// The weight of the norm of the key, `[dim]`.
    pub const KEY_NORM: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.indexer_key_norm"));
    /// What is added after that norm, `[dim]`.
    pub const KEY_NORM_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.indexer_key_norm_bias"));

    /// Its tensors in layer `layer`, whose queries are made from a latent of width `query_rank`.
    pub(super) fn parts(&self, layer: usize, hidden: usize, query_rank: usize) -> Vec<Part> {
        if self.shared {
            return Vec::new();
        }
        let part = |tensor, shape| Part::of_layer(layer, tensor, shape);
        vec![
            part(Self::QUERY, vec![self.heads * self.dim, query_rank]),
            part(Self::KEY, vec![self.dim, hidden]),
            part(Self::WEIGHTS, vec![self.heads, hidden]),
            part(Self::KEY_NORM, vec![self.dim]),
            part(Self::KEY_NORM_BIAS, vec![self.dim]),
        ]
    }
}
