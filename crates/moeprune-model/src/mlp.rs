//! Gated MLPs: experts, shared ones among them, the residual MLP, dense layers.

use candle_core::Tensor;
use moeprune_core::{Activation, LinearId, MlpProjection, MlpSpec, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    ops,
};

/// `down(act(gate · x) ∘ (up · x))`
#[derive(Debug)]
pub(crate) struct GatedMlp {
    gate_up: Linear,
    down: Linear,
    hidden: usize,
    inner: usize,
    activation: Activation,
}

/// The shape of a gated MLP.
#[derive(Clone, Copy)]
pub(crate) struct MlpShape {
    hidden: usize,
    inner: usize,
    biases: bool,
    activation: Activation,
}

impl MlpShape {
    pub(crate) fn new(hidden: usize, mlp: &MlpSpec) -> Self {
        let MlpSpec { inner, biases, activation, .. } = *mlp;
        Self { hidden, inner, biases, activation }
    }
}

impl GatedMlp {
    /// Reads the three weights `site` names, and their biases if there are some.
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        site: impl Fn(MlpProjection) -> LinearId,
        shape: MlpShape,
    ) -> Result<Self, Error> {
        let id = |p| TensorId::linear(layer, site(p));
        let gate_up =
            [(id(MlpProjection::Gate), shape.inner), (id(MlpProjection::Up), shape.inner)];
        let down = [(id(MlpProjection::Down), shape.hidden)];
        Ok(Self {
            gate_up: weights.linear_with(&gate_up, shape.hidden, shape.biases)?,
            down: weights.linear_with(&down, shape.inner, shape.biases)?,
            hidden: shape.hidden,
            inner: shape.inner,
            activation: shape.activation,
        })
    }

    /// A stored weight, sharing the memory of the one that runs; `None` where it was widened.
    pub(crate) fn stored(&self, projection: MlpProjection) -> Result<Option<Tensor>, Error> {
        match projection {
            MlpProjection::Gate => self.gate_up.stored_rows(0..self.inner),
            MlpProjection::Up => self.gate_up.stored_rows(self.inner..2 * self.inner),
            MlpProjection::Down => self.down.stored_rows(0..self.hidden),
        }
    }

    /// `[tokens, hidden]` to the same; shows both inputs to `sink`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        site: impl Fn(MlpProjection) -> LinearId,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(site(MlpProjection::Gate), x)?;
        let gate_up = self.gate_up.forward(x)?;
        let hidden = match self.activation {
            Activation::ClampedSwiglu(clamps) => ops::clamped_swiglu(&gate_up, clamps)?,
            Activation::GeluTanh => ops::gated_gelu_tanh(&gate_up)?,
            // Loading refuses what is not known.
            Activation::Silu | Activation::Opaque => ops::gated_silu(&gate_up)?,
        };
        sink.linear_input(site(MlpProjection::Down), &hidden)?;
        self.down.forward(&hidden)
    }
}
