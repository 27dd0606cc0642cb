//! MLPs: an expert, one beside the experts, or one instead of them.

use serde::Serialize;

use super::Part;
use crate::{LayerTensor, LinearId, MlpProjection};

/// Activation function of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// `max(x, 0)²`
    ReluSquared,
    /// SiLU with limits, gate and up together.
    ClampedSwiglu(ClampedSwiglu),
    /// One that the descriptor does not name: it cannot be run.
    Opaque,
}

/// `(up' + 1) · gate' · sigmoid(alpha · gate')` (gpt-oss), with `gate' = min(gate, limit)` and `up'` the up
/// value between `−limit` and `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ClampedSwiglu {
    /// What the gate is multiplied by within the logistic function.
    pub alpha: f64,
    /// The largest gate, and the largest magnitude of up.
    pub limit: f64,
}

impl Activation {
    /// The kind as configs name it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::ReluSquared => "relu2",
            Self::ClampedSwiglu(_) => "clamped_swiglu",
            Self::Opaque => "opaque",
        }
    }
}

/// `down(act(gate · x) ∘ (up · x))`, or without a gate `down(act(up · x))`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct MlpSpec {
    /// Inner width.
    pub inner: usize,
    /// Whether there is a gate matrix.
    pub gated: bool,
    /// Whether each matrix has a bias.
    pub biases: bool,
    /// Its activation.
    pub activation: Activation,
}

impl MlpSpec {
    /// The SiLU-gated MLP of most families.
    #[must_use]
    pub fn gated(inner: usize) -> Self {
        Self { inner, gated: true, biases: false, activation: Activation::Silu }
    }

    /// The matrices it has.
    #[must_use]
    pub fn projections(&self) -> &'static [MlpProjection] {
        if self.gated { &MlpProjection::ALL } else { &MlpProjection::ALL[1..] }
    }

    /// The first of the matrices that read the MLP's input, under which its statistics are kept.
    #[must_use]
    pub fn input(&self) -> MlpProjection {
        if self.gated { MlpProjection::Gate } else { MlpProjection::Up }
    }

    /// Its tensors, called as `id` calls them.
    pub fn parts(
        &self,
        layer: usize,
        hidden: usize,
        id: impl Fn(MlpProjection) -> LinearId,
    ) -> Vec<Part> {
        let mut parts = Vec::with_capacity(6);
        for &projection in self.projections() {
            let (rows, cols) = match projection {
                MlpProjection::Gate | MlpProjection::Up => (self.inner, hidden),
                MlpProjection::Down => (hidden, self.inner),
            };
            let part = Part::linear(layer, id(projection), rows, cols);
            parts.push(match projection {
                MlpProjection::Gate | MlpProjection::Up => part.reading_with(id(self.input())),
                MlpProjection::Down => part,
            });
            if self.biases {
                let bias = LayerTensor::Bias(id(projection));
                parts.push(Part::of_layer(layer, bias, vec![rows]));
            }
        }
        parts
    }
}
