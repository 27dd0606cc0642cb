//! Attention.

use serde::Serialize;

use super::{OpaqueTensor, Part};
use crate::{AttentionProjection, LinearId};

/// How the tokens of a layer see each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum AttentionSpec {
    /// Grouped-query attention without biases and without norms on queries and keys.
    Grouped(GroupedAttention),
    /// Attention of which only the tensors are known: it can be carried over, not run.
    Opaque(Vec<OpaqueTensor>),
}

/// Grouped-query attention with half-split rotary positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct GroupedAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Attention looks at most this many positions back, when set.
    pub sliding_window: Option<usize>,
}

impl AttentionSpec {
    /// The kind as descriptors name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Grouped(_) => "grouped",
            Self::Opaque(_) => "opaque",
        }
    }

    /// The tensors of the attention of layer `layer`, whose inputs and outputs are `hidden` wide.
    #[must_use]
    pub fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        match self {
            Self::Grouped(grouped) => grouped.parts(layer, hidden),
            Self::Opaque(tensors) => tensors.iter().map(|tensor| tensor.part(layer)).collect(),
        }
    }
}

impl GroupedAttention {
    /// Width of all queries of a token.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys of a token, and of all values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        use AttentionProjection::{Key, Output, Query, Value};
        let (query, kv) = (self.query_width(), self.kv_width());
        let part = |p, rows, cols| Part::linear(layer, LinearId::Attention(p), rows, cols);
        vec![
            part(Query, query, hidden),
            part(Key, kv, hidden).reading_with(LinearId::Attention(Query)),
            part(Value, kv, hidden).reading_with(LinearId::Attention(Query)),
            part(Output, hidden, query),
        ]
    }
}
