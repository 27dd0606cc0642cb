//! MLPs: experts, shared ones among them, the residual MLP, dense layers.

use candle_core::Tensor;
use moeprune_core::{Activation, LinearId, MlpProjection, MlpSpec, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    ops,
};

/// `down(act(gate · x) ∘ (up · x))`, or without a gate `down(act(up · x))`
#[derive(Debug)]
pub(crate) struct Mlp {
    /// Gate and up, or up alone.
    inputs: Linear,
    down: Linear,
    hidden: usize,
    spec: MlpSpec,
}

impl Mlp {
    /// Reads the weights `site` names, and their biases if there are some. Input and output are `hidden`
    /// wide.
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        site: impl Fn(MlpProjection) -> LinearId,
        hidden: usize,
        spec: &MlpSpec,
    ) -> Result<Self, Error> {
        let part = |p| (TensorId::linear(layer, site(p)), spec.inner);
        let inputs = match spec.gated {
            true => vec![part(MlpProjection::Gate), part(MlpProjection::Up)],
            false => vec![part(MlpProjection::Up)],
        };
        let down = [(TensorId::linear(layer, site(MlpProjection::Down)), hidden)];
        Ok(Self {
            inputs: weights.linear_with(&inputs, hidden, spec.biases)?,
            down: weights.linear_with(&down, spec.inner, spec.biases)?,
            hidden,
            spec: *spec,
        })
    }

    /// The matrices it has.
    pub(crate) fn projections(&self) -> &'static [MlpProjection] {
        self.spec.projections()
    }

    /// A stored weight, sharing the memory of the one that runs; `None` where it was packed, and for a
    /// matrix that it does not have.
    pub(crate) fn stored(&self, projection: MlpProjection) -> Result<Option<Tensor>, Error> {
        let MlpSpec { inner, gated, .. } = self.spec;
        match projection {
            MlpProjection::Gate if !gated => Ok(None),
            MlpProjection::Up if gated => self.inputs.stored_rows(inner..2 * inner),
            MlpProjection::Gate | MlpProjection::Up => self.inputs.stored_rows(0..inner),
            MlpProjection::Down => self.down.stored_rows(0..self.hidden),
        }
    }

    /// Bytes that its weights take where it runs.
    pub(crate) fn bytes(&self) -> u64 {
        self.inputs.bytes() + self.down.bytes()
    }

    /// `[tokens, hidden]` to `[tokens, inner]`: what the down projection reads.
    pub(crate) fn hidden(&self, x: &Tensor) -> Result<Tensor, Error> {
        let made = self.inputs.forward(x)?;
        match self.spec.activation {
            Activation::ClampedSwiglu(clamps) => ops::clamped_swiglu(&made, clamps),
            Activation::ReluSquared => ops::relu_squared(&made),
            Activation::GeluTanh => ops::gated_gelu_tanh(&made),
            // Loading refuses what is not known.
            Activation::Silu | Activation::Opaque => ops::gated_silu(&made),
        }
    }

    /// `[tokens, hidden]` to the same; shows both inputs to `sink`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        site: impl Fn(MlpProjection) -> LinearId,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(site(self.spec.input()), x)?;
        let hidden = self.hidden(x)?;
        sink.linear_input(site(MlpProjection::Down), &hidden)?;
        self.down.forward(&hidden)
    }
}
