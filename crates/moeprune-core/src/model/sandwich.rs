//! Norms around the blocks of a layer.

use serde::Serialize;

use super::Part;
use crate::{LayerTensor, PartName};

/// Which norms stand around the blocks of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum LayerNorms {
    /// One before attention and one before the feed-forward block.
    #[default]
    Before,
    /// After each block too.
    Around(SandwichNorms),
    /// Of a kind that is not known: they are among the layer's other tensors, and such a model is not run.
    Named,
}

/// Norms after each block (Gemma), beside those before it. With `h` the state after attention was added:
///
/// ```text
/// h   = x + attention_output(attention(input_norm(x)))
/// out = h + feed_forward_output(dense(post_attention_norm(h)))
/// out = h + feed_forward_output(residual_output(residual(residual_norm(h)))
///                               + experts_output(experts(post_attention_norm(h))))
/// ```
///
/// `residual_output` and `experts_output` are there where an MLP stands beside the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct SandwichNorms {
    /// Whether the layer's output is multiplied by a stored number, `[1]`.
    pub output_scale: bool,
}

impl LayerNorms {
    /// Whether there are those that most families have.
    pub(super) fn is_before(&self) -> bool {
        *self == Self::Before
    }
}

impl SandwichNorms {
    /// The weight of the norm of what attention makes, `[hidden]`.
    pub const ATTENTION_OUTPUT: LayerTensor =
        LayerTensor::Named(PartName::constant("norm.attention_output"));
    /// The weight of the norm of what the feed-forward block makes, `[hidden]`.
    pub const FEED_FORWARD_OUTPUT: LayerTensor =
        LayerTensor::Named(PartName::constant("norm.feed_forward_output"));
    /// The weight of the norm of what the MLP beside the experts makes, `[hidden]`.
    pub const RESIDUAL_OUTPUT: LayerTensor =
        LayerTensor::Named(PartName::constant("norm.residual_output"));
    /// The weight of the norm of what the experts make together, `[hidden]`.
    pub const EXPERTS_OUTPUT: LayerTensor =
        LayerTensor::Named(PartName::constant("norm.experts_output"));
    /// What the layer's output is multiplied by, `[1]`.
    pub const OUTPUT_SCALE: LayerTensor =
        LayerTensor::Named(PartName::constant("norm.output_scale"));

    /// The tensors of layer `layer`; `beside`: whether an MLP stands beside its experts.
    pub(super) fn parts(self, layer: usize, hidden: usize, beside: bool) -> Vec<Part> {
        let mut norms = vec![Self::ATTENTION_OUTPUT, Self::FEED_FORWARD_OUTPUT];
        if beside {
            norms.extend([Self::RESIDUAL_OUTPUT, Self::EXPERTS_OUTPUT]);
        }
        let norm = |tensor| Part::of_layer(layer, tensor, vec![hidden]);
        let mut parts: Vec<Part> = norms.into_iter().map(norm).collect();
        if self.output_scale {
            parts.push(Part::of_layer(layer, Self::OUTPUT_SCALE, vec![1]));
        }
        parts
    }
}
