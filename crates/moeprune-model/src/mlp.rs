//! Gated MLPs: experts, shared ones among them, the residual MLP, dense layers.

use candle_core::Tensor;
use moeprune_core::{LinearId, MlpProjection, MlpSpec, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    ops,
};

/// `down(silu(gate · x) ∘ (up · x))`
#[derive(Debug)]
pub(crate) struct GatedMlp {
    gate_up: Linear,
    down: Linear,
    hidden: usize,
    inner: usize,
}

/// The shape of a SiLU-gated MLP.
#[derive(Clone, Copy)]
pub(crate) struct MlpShape {
    hidden: usize,
    inner: usize,
    biases: bool,
}

impl MlpShape {
    pub(crate) fn new(hidden: usize, mlp: &MlpSpec) -> Self {
        Self { hidden, inner: mlp.inner, biases: mlp.biases }
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
        let hidden = ops::gated_silu(&self.gate_up.forward(x)?)?;
        sink.linear_input(site(MlpProjection::Down), &hidden)?;
        self.down.forward(&hidden)
    }
}
