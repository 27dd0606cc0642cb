//! Short convolutions.

use serde::Serialize;

use crate::{LayerTensor, LinearId, PartName, model::Part};

/// A gated short convolution (LFM2): a token sees the few before it.
///
/// With `b`, `c` and `u` the thirds of `input(x)`, `x` the layer's input after its norm, the output is
/// `output(c ∘ convolution(b ∘ u))`; the convolution is causal and depthwise, with nothing after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ShortConvolution {
    /// Tokens that the convolution sees, the current one included.
    pub kernel: usize,
    /// Whether the convolution and both matrices have a bias.
    pub biases: bool,
}

impl ShortConvolution {
    /// `[3 · hidden, hidden]`
    pub const INPUT: LinearId = LinearId::Named(PartName::constant("attention.convolution_input"));
    /// `[hidden, hidden]`
    pub const OUTPUT: LinearId =
        LinearId::Named(PartName::constant("attention.convolution_output"));
    /// `[hidden, 1, kernel]`; the last tap meets the current token.
    pub const CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.convolution"));
    /// `[hidden]`
    pub const CONVOLUTION_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.convolution_bias"));

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let mut parts = vec![
            Part::linear(layer, Self::INPUT, 3 * hidden, hidden),
            Part::linear(layer, Self::OUTPUT, hidden, hidden),
            Part::of_layer(layer, Self::CONVOLUTION, vec![hidden, 1, self.kernel]),
        ];
        if self.biases {
            let bias = |tensor, width| Part::of_layer(layer, tensor, vec![width]);
            parts.extend([
                bias(LayerTensor::Bias(Self::INPUT), 3 * hidden),
                bias(LayerTensor::Bias(Self::OUTPUT), hidden),
                bias(Self::CONVOLUTION_BIAS, hidden),
            ]);
        }
        parts
    }
}
