//! Experts that every token goes through.

use candle_core::Tensor;
use moeprune_core::{LayerTensor, LinearId, SharedSpec, TensorId};

use crate::{
    ActivationSink, Error,
    linear::{Linear, Weights},
    mlp::Mlp,
    ops,
};

/// `mlp(x)`, or `sigmoid(gate · x) · mlp(x)`.
#[derive(Debug)]
pub(crate) struct SharedExpert {
    /// Its place among them.
    at: usize,
    mlp: Mlp,
    gate: Option<Linear>,
}

impl SharedExpert {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        at: usize,
        hidden: usize,
        spec: &SharedSpec,
    ) -> Result<Self, Error> {
        let mlp = Mlp::load(weights, layer, |p| LinearId::Shared(at, p), hidden, &spec.mlp)?;
        let gate = TensorId::Layer(layer, LayerTensor::SharedGate(at));
        let gate = if spec.gate { Some(weights.linear(&[(gate, 1)], hidden)?) } else { None };
        Ok(Self { at, mlp, gate })
    }

    /// `[tokens, hidden]` to the same; shows both inputs of the MLP to `sink`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let output = self.mlp.forward(x, |p| LinearId::Shared(self.at, p), sink)?;
        match &self.gate {
            None => Ok(output),
            Some(gate) => ops::gated_rows(&output, &gate.forward(x)?),
        }
    }

    /// The stored weight of a Linear of it; `None` where it was widened.
    pub(crate) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match linear {
            LinearId::Shared(at, projection) if at == self.at => self.mlp.stored(projection),
            _ => Ok(None),
        }
    }
}
