//! Attention.

mod gated_delta;
mod grouped;
mod kimi_delta;
mod latent;
mod lightning_indexer;
mod mamba2;
mod short_convolution;

use serde::Serialize;

pub use self::{
    gated_delta::{DeltaProjections, GatedDeltaNet},
    grouped::{
        AttentionBiases, GroupedAttention, QueryKeyNorm, QueryTemperature, Reach, ValueSource,
    },
    kimi_delta::KimiDeltaAttention,
    latent::LatentAttention,
    lightning_indexer::LightningIndexer,
    mamba2::Mamba2,
    short_convolution::ShortConvolution,
};
use super::{OpaqueTensor, Part, RotarySpec};
use crate::{AttentionProjection, LinearId};

/// How the tokens of a layer see each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum AttentionSpec {
    /// Grouped-query attention.
    Grouped(GroupedAttention),
    /// Multi-head latent attention.
    Latent(LatentAttention),
    /// A gated delta net.
    GatedDelta(GatedDeltaNet),
    /// Kimi delta attention.
    KimiDelta(KimiDeltaAttention),
    /// A short convolution.
    ShortConvolution(ShortConvolution),
    /// Mamba-2.
    Mamba2(Mamba2),
    /// The layer has none: its tokens do not see each other.
    None,
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
            Self::GatedDelta(_) => "gated_delta",
            Self::KimiDelta(_) => "kimi_delta",
            Self::ShortConvolution(_) => "short_convolution",
            Self::Mamba2(_) => "mamba2",
            Self::None => "none",
            Self::Opaque(_) => "opaque",
        }
    }

    /// Heads of queries whose scores stand beside each other; 0 where that is not known, and where there
    /// are no scores.
    #[must_use]
    pub fn heads(&self) -> usize {
        match self {
            Self::Grouped(grouped) => grouped.heads,
            Self::Latent(latent) => latent.heads,
            Self::GatedDelta(_)
            | Self::KimiDelta(_)
            | Self::ShortConvolution(_)
            | Self::Mamba2(_)
            | Self::None => 0,
            Self::Opaque(_) => 0,
        }
    }

    /// The Linear whose outputs are added to the residual stream; `None` where that is not known.
    #[must_use]
    pub fn output(&self) -> Option<LinearId> {
        match self {
            Self::Grouped(_) => Some(LinearId::Attention(AttentionProjection::Output)),
            Self::Latent(_) => Some(LatentAttention::OUTPUT),
            Self::GatedDelta(_) => Some(GatedDeltaNet::OUTPUT),
            Self::KimiDelta(_) => Some(KimiDeltaAttention::OUTPUT),
            Self::ShortConvolution(_) => Some(ShortConvolution::OUTPUT),
            Self::Mamba2(_) => Some(Mamba2::OUTPUT),
            Self::None | Self::Opaque(_) => None,
        }
    }

    /// How queries and keys turn, if they do.
    #[must_use]
    pub fn rotary(&self) -> Option<&RotarySpec> {
        match self {
            Self::Grouped(grouped) => grouped.rotary.as_ref(),
            Self::Latent(latent) => latent.rotary.as_ref(),
            Self::GatedDelta(_)
            | Self::KimiDelta(_)
            | Self::ShortConvolution(_)
            | Self::Mamba2(_)
            | Self::None => None,
            Self::Opaque(_) => None,
        }
    }

    /// The tensors of the attention of layer `layer`, whose inputs and outputs are `hidden` wide.
    #[must_use]
    pub fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        match self {
            Self::Grouped(grouped) => grouped.parts(layer, hidden),
            Self::Latent(latent) => latent.parts(layer, hidden),
            Self::GatedDelta(delta) => delta.parts(layer, hidden),
            Self::KimiDelta(delta) => delta.parts(layer, hidden),
            Self::ShortConvolution(convolution) => convolution.parts(layer, hidden),
            Self::Mamba2(mamba) => mamba.parts(layer, hidden),
            Self::None => Vec::new(),
            Self::Opaque(tensors) => tensors.iter().map(|tensor| tensor.part(layer)).collect(),
        }
    }
}

/// Matrices that read the layer's input, each with its number of rows; the first is the input site.
fn sharing_input(layer: usize, hidden: usize, inputs: &[(LinearId, usize)]) -> Vec<Part> {
    let Some(&(first, _)) = inputs.first() else { return Vec::new() };
    let part =
        |&(id, rows): &(LinearId, usize)| Part::linear(layer, id, rows, hidden).reading_with(first);
    inputs.iter().map(part).collect()
}
