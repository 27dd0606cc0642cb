//! Attention.

mod grouped;
mod latent;

use serde::Serialize;

pub use self::{
    grouped::{AttentionBiases, GroupedAttention, QueryKeyNorm},
    latent::LatentAttention,
};
use super::{OpaqueTensor, Part};

/// How the tokens of a layer see each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum AttentionSpec {
    /// Grouped-query attention.
    Grouped(GroupedAttention),
    /// Multi-head latent attention.
    Latent(LatentAttention),
    /// Attention of which only the tensors are known: it can be carried over, not run.
    Opaque(Vec<OpaqueTensor>),
}

impl AttentionSpec {
    /// The kind as descriptors name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Grouped(_) => "grouped",
            Self::Latent(_) => "latent",
            Self::Opaque(_) => "opaque",
        }
    }

    /// Heads of queries; 0 where that is not known.
    #[must_use]
    pub fn heads(&self) -> usize {
        match self {
            Self::Grouped(grouped) => grouped.heads,
            Self::Latent(latent) => latent.heads,
            Self::Opaque(_) => 0,
        }
    }

    /// The tensors of the attention of layer `layer`, whose inputs and outputs are `hidden` wide.
    #[must_use]
    pub fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        match self {
            Self::Grouped(grouped) => grouped.parts(layer, hidden),
            Self::Latent(latent) => latent.parts(layer, hidden),
            Self::Opaque(tensors) => tensors.iter().map(|tensor| tensor.part(layer)).collect(),
        }
    }
}
