//! Mamba-2.

use serde::Serialize;

use crate::{LayerTensor, LinearId, PartName, model::Part};

/// Mamba-2 (Dao and Gu 2024, arXiv 2405.21060), in place of attention: each head keeps one matrix `S`,
/// `[head_dim, state]`, which is 0 before the first token.
///
/// From the layer's input after its norm come, one after the other, gates (`heads · head_dim`), what the
/// convolution reads, and one number `t` per head. The causal depthwise convolution and SiLU give `x` (per head), and `B`
/// and `C` (per group, each `state` wide). A group serves `heads / groups` neighbouring heads. Per token
/// and head:
///
/// ```text
/// d ← max(softplus(t + step_bias), least_step)
/// S ← S · exp(−exp(log_decay) · d) + d · x ⊗ B
/// y = S · C + skip · x
/// ```
///
/// The output is `output(norm(y ∘ silu(gate)))`, the norm per group of `heads · head_dim / groups`
/// numbers, with a plain weight and the model's epsilon.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Mamba2 {
    /// Heads; a multiple of `groups`.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Groups of heads that share `B` and `C`.
    pub groups: usize,
    /// Columns of the state.
    pub state: usize,
    /// Tokens that the convolution sees, the current one included.
    pub kernel: usize,
    /// The least step; 0 of models without one.
    pub least_step: f64,
    /// Whether the convolution has a bias.
    pub convolution_bias: bool,
    /// Whether the two matrices have biases.
    pub biases: bool,
}

impl Mamba2 {
    /// Gates, what the convolution reads, and steps, `[inner + channels + heads, hidden]`.
    pub const INPUT: LinearId = LinearId::Named(PartName::constant("attention.mamba_input"));
    /// `[hidden, inner]`
    pub const OUTPUT: LinearId = LinearId::Named(PartName::constant("attention.mamba_output"));
    /// `[channels, 1, kernel]`; the last tap meets the current token.
    pub const CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.convolution"));
    /// `[channels]`
    pub const CONVOLUTION_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.convolution_bias"));
    /// `[heads]`
    pub const LOG_DECAY: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.log_decay"));
    /// `[heads]`
    pub const STEP_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.step_bias"));
    /// What of its input a head passes on, `[heads]`.
    pub const SKIP: LayerTensor = LayerTensor::Named(PartName::constant("attention.skip"));
    /// The weight of the output's norm, `[inner]`.
    pub const NORM: LayerTensor = LayerTensor::Named(PartName::constant("attention.output_norm"));

    /// Width of all heads together.
    #[must_use]
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of `B` of all groups, and of `C`.
    #[must_use]
    pub fn group_width(&self) -> usize {
        self.groups * self.state
    }

    /// Width of what the convolution reads: `x`, `B`, `C`.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inner() + 2 * self.group_width()
    }

    /// Rows of the matrix that reads the input.
    #[must_use]
    pub fn input_rows(&self) -> usize {
        self.inner() + self.channels() + self.heads
    }

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let (inner, rows) = (self.inner(), self.input_rows());
        let vector = |tensor, len| Part::of_layer(layer, tensor, vec![len]);
        let convolution = vec![self.channels(), 1, self.kernel];
        let mut parts = vec![
            Part::linear(layer, Self::INPUT, rows, hidden),
            Part::linear(layer, Self::OUTPUT, hidden, inner),
            Part::of_layer(layer, Self::CONVOLUTION, convolution),
            vector(Self::LOG_DECAY, self.heads),
            vector(Self::STEP_BIAS, self.heads),
            vector(Self::SKIP, self.heads),
            vector(Self::NORM, inner),
        ];
        if self.convolution_bias {
            parts.push(vector(Self::CONVOLUTION_BIAS, self.channels()));
        }
        if self.biases {
            parts.push(vector(LayerTensor::Bias(Self::INPUT), rows));
            parts.push(vector(LayerTensor::Bias(Self::OUTPUT), hidden));
        }
        parts
    }
}
