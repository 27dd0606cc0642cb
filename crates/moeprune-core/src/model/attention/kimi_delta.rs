//! Kimi delta attention.

use serde::Serialize;

use crate::{AttentionProjection, LayerTensor, LinearId, PartName, model::Part};

/// Kimi delta attention (Kimi Linear, arXiv 2510.26692): a gated delta net
/// ([`GatedDeltaNet`](super::GatedDeltaNet)) whose state decays at its own rate per row.
///
/// Queries, keys and values have as many heads and are as wide, and each has its own convolution.
/// With `x` the layer's input after its norm:
///
/// ```text
/// S rows · exp(−exp(log_decay) · softplus(decay_b(decay_a(x)) + decay_bias))
/// output(norm(o) ∘ sigmoid(gate_b(gate_a(x))))
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct KimiDeltaAttention {
    /// Heads.
    pub heads: usize,
    /// Width of a head, and of what lies between the two matrices of decay and gate.
    pub head_dim: usize,
    /// Tokens that the convolutions see, the current one included.
    pub kernel: usize,
}

impl KimiDeltaAttention {
    /// `[heads · head_dim, hidden]`
    pub const QUERY: LinearId = LinearId::Attention(AttentionProjection::Query);
    /// `[heads · head_dim, hidden]`
    pub const KEY: LinearId = LinearId::Attention(AttentionProjection::Key);
    /// `[heads · head_dim, hidden]`
    pub const VALUE: LinearId = LinearId::Attention(AttentionProjection::Value);
    /// `[hidden, heads · head_dim]`
    pub const OUTPUT: LinearId = LinearId::Attention(AttentionProjection::Output);
    /// The first half of the decay, `[head_dim, hidden]`.
    pub const DECAY_A: LinearId = LinearId::Named(PartName::constant("attention.decay_a"));
    /// The second half of the decay, `[heads · head_dim, head_dim]`.
    pub const DECAY_B: LinearId = LinearId::Named(PartName::constant("attention.decay_b"));
    /// The first half of the output's gate, `[head_dim, hidden]`.
    pub const GATE_A: LinearId = LinearId::Named(PartName::constant("attention.gate_a"));
    /// The second half of the output's gate, `[heads · head_dim, head_dim]`.
    pub const GATE_B: LinearId = LinearId::Named(PartName::constant("attention.gate_b"));
    /// How much of the difference is stored, before the logistic function, `[heads, hidden]`.
    pub const BETA: LinearId = LinearId::Named(PartName::constant("attention.beta"));
    /// `[heads · head_dim, 1, kernel]`
    pub const QUERY_CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.query_convolution"));
    /// `[heads · head_dim, 1, kernel]`
    pub const KEY_CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.key_convolution"));
    /// `[heads · head_dim, 1, kernel]`
    pub const VALUE_CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.value_convolution"));
    /// `[1, 1, heads, 1]`
    pub const LOG_DECAY: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.log_decay"));
    /// `[heads · head_dim]`
    pub const DECAY_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.decay_bias"));
    /// The weight of the output's norm, `[head_dim]`.
    pub const NORM: LayerTensor = LayerTensor::Named(PartName::constant("attention.output_norm"));

    /// Width of all heads together.
    #[must_use]
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// The matrices that read the input and their numbers of rows. Statistics of the input are kept
    /// under the first.
    #[must_use]
    pub fn inputs(&self) -> [(LinearId, usize); 6] {
        [
            (Self::QUERY, self.width()),
            (Self::KEY, self.width()),
            (Self::VALUE, self.width()),
            (Self::DECAY_A, self.head_dim),
            (Self::GATE_A, self.head_dim),
            (Self::BETA, self.heads),
        ]
    }

    /// The convolutions of queries, keys and values.
    pub const CONVOLUTIONS: [LayerTensor; 3] =
        [Self::QUERY_CONVOLUTION, Self::KEY_CONVOLUTION, Self::VALUE_CONVOLUTION];

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let width = self.width();
        let vector = |tensor, shape| Part::of_layer(layer, tensor, shape);
        let mut parts = super::sharing_input(layer, hidden, &self.inputs());
        parts.extend([
            Part::linear(layer, Self::DECAY_B, width, self.head_dim),
            Part::linear(layer, Self::GATE_B, width, self.head_dim),
            Part::linear(layer, Self::OUTPUT, hidden, width),
            vector(Self::LOG_DECAY, vec![1, 1, self.heads, 1]),
            vector(Self::DECAY_BIAS, vec![width]),
            vector(Self::NORM, vec![self.head_dim]),
        ]);
        parts.extend(Self::CONVOLUTIONS.map(|id| vector(id, vec![width, 1, self.kernel])));
        parts
    }
}
