//! Gated delta nets.

use serde::Serialize;

use crate::{LayerTensor, LinearId, PartName, model::Part};

/// A gated delta net (Yang et al. 2024, arXiv 2412.06464): in place of keys and values of all tokens,
/// each value head keeps one matrix `S`, `[key_dim, value_dim]`, which is 0 before the first token.
///
/// From the layer's input `x` after its norm come queries and keys (per key head), values and gates `z`
/// (per value head), and two numbers `b` and `a` per value head. Queries, keys and values go through a
/// causal depthwise convolution and SiLU; queries and keys are then divided by their length
/// (`sqrt(Σ² + 1e-6)`), queries also by `sqrt(key_dim)`. A key head serves `value_heads / key_heads`
/// neighbouring value heads. Per token and value head:
///
/// ```text
/// S ← S · exp(−exp(log_decay) · softplus(a + decay_bias))
/// S ← S + k ⊗ ((v − kᵀS) · sigmoid(b))
/// o = qᵀS
/// ```
///
/// The output is `output(norm(o) ∘ silu(z))`, the norm per head, with a plain weight and the model's
/// epsilon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct GatedDeltaNet {
    /// Heads of queries and of keys.
    pub key_heads: usize,
    /// Heads of values; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Width of a head of queries and of keys.
    pub key_dim: usize,
    /// Width of a head of values.
    pub value_dim: usize,
    /// Tokens that the convolution sees, the current one included.
    pub kernel: usize,
    /// How the projections of the input are stored.
    pub projections: DeltaProjections,
}

/// How the projections of a gated delta net's input are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum DeltaProjections {
    /// Two matrices, whose rows stand by key head: query, key, value, z; and b, a.
    ByKeyHead,
    /// Four: query, key and value of all heads, one after the other; z; b; a.
    Apart,
}

impl GatedDeltaNet {
    /// Queries, keys, values and gates by key head,
    /// `[key_heads · (2 · key_dim + 2 · r · value_dim), hidden]` with `r` value heads per key head.
    pub const QKVZ: LinearId = LinearId::Named(PartName::constant("attention.qkvz"));
    /// `b` and `a` by key head, `[2 · value_heads, hidden]`.
    pub const BA: LinearId = LinearId::Named(PartName::constant("attention.ba"));
    /// Queries, keys and values, `[2 · key_heads · key_dim + value_heads · value_dim, hidden]`.
    pub const QKV: LinearId = LinearId::Named(PartName::constant("attention.qkv"));
    /// Gates, `[value_heads · value_dim, hidden]`.
    pub const Z: LinearId = LinearId::Named(PartName::constant("attention.z"));
    /// `[value_heads, hidden]`
    pub const B: LinearId = LinearId::Named(PartName::constant("attention.b"));
    /// `[value_heads, hidden]`
    pub const A: LinearId = LinearId::Named(PartName::constant("attention.a"));
    /// `[hidden, value_heads · value_dim]`
    pub const OUTPUT: LinearId = LinearId::Named(PartName::constant("attention.delta_output"));
    /// The convolution of queries, keys and values, `[channels, 1, kernel]`; the last tap meets the
    /// current token.
    pub const CONVOLUTION: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.convolution"));
    /// `[value_heads]`
    pub const LOG_DECAY: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.log_decay"));
    /// `[value_heads]`
    pub const DECAY_BIAS: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.decay_bias"));
    /// The weight of the output's norm, `[value_dim]`.
    pub const NORM: LayerTensor = LayerTensor::Named(PartName::constant("attention.output_norm"));

    /// Width of all queries of a token, and of all keys.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Width of all values of a token, and of their gates.
    #[must_use]
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Width of what the convolution reads: queries, keys, values.
    #[must_use]
    pub fn channels(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    /// The matrices that read the input and their numbers of rows. Statistics of the input are kept
    /// under the first.
    #[must_use]
    pub fn inputs(&self) -> Vec<(LinearId, usize)> {
        match self.projections {
            DeltaProjections::ByKeyHead => vec![
                (Self::QKVZ, self.channels() + self.value_width()),
                (Self::BA, 2 * self.value_heads),
            ],
            DeltaProjections::Apart => vec![
                (Self::QKV, self.channels()),
                (Self::Z, self.value_width()),
                (Self::B, self.value_heads),
                (Self::A, self.value_heads),
            ],
        }
    }

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        let vector = |tensor, shape| Part::of_layer(layer, tensor, shape);
        let mut parts = super::sharing_input(layer, hidden, &self.inputs());
        parts.extend([
            Part::linear(layer, Self::OUTPUT, hidden, self.value_width()),
            vector(Self::CONVOLUTION, vec![self.channels(), 1, self.kernel]),
            vector(Self::LOG_DECAY, vec![self.value_heads]),
            vector(Self::DECAY_BIAS, vec![self.value_heads]),
            vector(Self::NORM, vec![self.value_dim]),
        ]);
        parts
    }
}
