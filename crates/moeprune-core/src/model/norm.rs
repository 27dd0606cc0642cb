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

/// The norm of a layer's input and, of a layer with two blocks, the one before the second, each `[hidden]`,
/// and their biases, if they have some.
pub(super) fn parts(layer: usize, model: &ModelSpec, two_blocks: bool) -> Vec<Part> {
    let mut norms = vec![LayerTensor::InputNorm];
    if two_blocks {
        norms.push(LayerTensor::PostAttentionNorm);
    }
    if model.norm_weights == NormWeights::WithBias {
        norms.push(LayerTensor::InputNormBias);
        if two_blocks {
            norms.push(LayerTensor::PostAttentionNormBias);
        }
    }
    norms.into_iter().map(|norm| Part::of_layer(layer, norm, vec![model.hidden])).collect()
}

/// The norm before the MLP beside the experts, `[hidden]`.
pub(super) fn residual(layer: usize, hidden: usize) -> Part {
    Part::of_layer(layer, LayerTensor::ResidualNorm, vec![hidden])
}
