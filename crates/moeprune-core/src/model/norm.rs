//! The norms of a decoder layer's default block.

use serde::Serialize;

use super::{ModelSpec, Part};
use crate::LayerTensor;

/// What a model's norms are and how their weights are stored: those of layers, of queries and keys, and
/// the last.
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
    /// As what they multiply by, beside a bias: these norms take away the mean first (LayerNorm, Ba et
    /// al. 2016). Norms of queries and keys and Arctic's residual norm are not known to be such.
    WithBias,
}

/// The norm before attention and the one before the feed-forward block, each `[hidden]`, and their
/// biases, if they have some.
pub(super) fn parts(layer: usize, model: &ModelSpec) -> Vec<Part> {
    let norms: &[LayerTensor] = match model.norm_weights {
        NormWeights::Factor | NormWeights::MinusOne => {
            &[LayerTensor::InputNorm, LayerTensor::PostAttentionNorm]
        }
        NormWeights::WithBias => &[
            LayerTensor::InputNorm,
            LayerTensor::PostAttentionNorm,
            LayerTensor::InputNormBias,
            LayerTensor::PostAttentionNormBias,
        ],
    };
    norms.iter().map(|norm| Part::of_layer(layer, *norm, vec![model.hidden])).collect()
}

/// The norm before the MLP beside the experts, `[hidden]`.
pub(super) fn residual(layer: usize, hidden: usize) -> Part {
    Part::of_layer(layer, LayerTensor::ResidualNorm, vec![hidden])
}
