//! The norms of a decoder layer's default block.

use serde::Serialize;

use super::Part;
use crate::LayerTensor;

/// How the weights of a model's norms are stored: those of layers, of queries and keys, and the last.
/// Norms within a kind of attention that are not of queries and keys are always plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum NormWeights {
    /// As what they multiply by.
    #[default]
    Factor,
    /// As what they multiply by, less one (Qwen3-Next, Gemma).
    MinusOne,
}

/// The norm before attention and the one before the feed-forward block, each `[hidden]`.
pub(super) fn parts(layer: usize, hidden: usize) -> Vec<Part> {
    [LayerTensor::InputNorm, LayerTensor::PostAttentionNorm]
        .map(|norm| Part::of_layer(layer, norm, vec![hidden]))
        .into()
}

/// The norm before the MLP beside the experts, `[hidden]`.
pub(super) fn residual(layer: usize, hidden: usize) -> Part {
    Part::of_layer(layer, LayerTensor::ResidualNorm, vec![hidden])
}
