//! The norms of a decoder layer's default block.

use super::Part;
use crate::LayerTensor;

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
