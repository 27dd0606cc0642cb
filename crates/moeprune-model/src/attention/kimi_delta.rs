//! Kimi delta attention.

use candle_core::Tensor;
use candle_nn::ops::sigmoid;
use moeprune_core::{KimiDeltaAttention, LinearId, ModelSpec, TensorId};

use super::{
    convolution::Convolution,
    delta_rule::{DeltaHeads, DeltaInputs, decay},
};
use crate::{
    ActivationSink, Error,
    cache::{self, SequenceCache},
    linear::{Linear, Weights},
    norm::RmsNorm,
    ops::wide,
};

/// Kimi delta attention.
#[derive(Debug)]
pub(crate) struct KimiDelta {
    shape: KimiDeltaAttention,
    /// All matrices that read the input.
    inputs: Linear,
    decay_b: Linear,
    gate_b: Linear,
    /// Of queries, keys and values.
    convolution: Convolution,
    /// `[heads]`
    log_decay: Tensor,
    /// `[heads · head_dim]`
    decay_bias: Tensor,
    norm: RmsNorm,
    output: Linear,
}

impl KimiDelta {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        shape: &KimiDeltaAttention,
    ) -> Result<Self, Error> {
        let KimiDeltaAttention { heads, head_dim, kernel } = *shape;
        let width = shape.width();
        if width == 0 {
            return Err(Error::Spec(format!("{heads} heads of width {head_dim}")));
        }
        let id = |tensor| TensorId::Layer(layer, tensor);
        let linear =
            |linear, rows, cols| weights.linear(&[(TensorId::linear(layer, linear), rows)], cols);
        let inputs = shape.inputs().map(|(linear, rows)| (TensorId::linear(layer, linear), rows));
        let convolved = KimiDeltaAttention::CONVOLUTIONS;
        let log_decay = weights.wide(id(KimiDeltaAttention::LOG_DECAY), &[1, 1, heads, 1])?;
        let norm = id(KimiDeltaAttention::NORM);
        Ok(Self {
            inputs: weights.linear(&inputs, spec.hidden)?,
            decay_b: linear(KimiDeltaAttention::DECAY_B, width, head_dim)?,
            gate_b: linear(KimiDeltaAttention::GATE_B, width, head_dim)?,
            convolution: Convolution::load(weights, layer, &convolved, width, kernel)?,
            log_decay: log_decay.flatten_all()?,
            decay_bias: weights.wide(id(KimiDeltaAttention::DECAY_BIAS), &[width])?,
            norm: RmsNorm::load_wide(weights, norm, head_dim, spec.norm_eps)?,
            output: linear(KimiDeltaAttention::OUTPUT, spec.hidden, width)?,
            shape: shape.clone(),
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match linear {
            KimiDeltaAttention::DECAY_B => self.decay_b.stored(),
            KimiDeltaAttention::GATE_B => self.gate_b.stored(),
            KimiDeltaAttention::OUTPUT => self.output.stored(),
            _ => self.inputs.stored_part(linear, &self.shape.inputs()),
        }
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let KimiDeltaAttention { heads, head_dim, .. } = self.shape;
        let width = self.shape.width();
        sink.linear_input(KimiDeltaAttention::QUERY, x)?;
        let projected = self.inputs.forward(x)?;
        let part = |start, width| Ok::<_, Error>(projected.narrow(1, start, width)?.contiguous()?);
        let decay_input = part(3 * width, head_dim)?;
        sink.linear_input(KimiDeltaAttention::DECAY_B, &decay_input)?;
        let gate_input = part(3 * width + head_dim, head_dim)?;
        sink.linear_input(KimiDeltaAttention::GATE_B, &gate_input)?;
        let beta = part(3 * width + 2 * head_dim, heads)?;
        let qkv = self.convolution.forward(&part(0, 3 * width)?, lens, caches)?.silu()?;
        let inputs = DeltaInputs {
            queries: qkv.narrow(1, 0, width)?.contiguous()?,
            keys: qkv.narrow(1, width, width)?.contiguous()?,
            values: qkv.narrow(1, 2 * width, width)?.contiguous()?,
            decay: decay(&self.decay_b.forward(&decay_input)?, &self.log_decay, &self.decay_bias)?,
            beta: sigmoid(&beta.to_dtype(wide(beta.dtype()))?)?,
        };
        let mixed = self.heads().run(inputs, lens, caches)?;
        cache::advance(caches, lens);
        let gates = sigmoid(&self.gate_b.forward(&gate_input)?.to_dtype(mixed.dtype())?)?;
        let mixed = (self.norm.forward_in_pieces(&mixed)? * gates)?.to_dtype(x.dtype())?;
        sink.linear_input(KimiDeltaAttention::OUTPUT, &mixed)?;
        self.output.forward(&mixed)
    }

    fn heads(&self) -> DeltaHeads {
        let KimiDeltaAttention { heads, head_dim, .. } = self.shape;
        let (key_heads, value_heads) = (heads, heads);
        DeltaHeads { key_heads, value_heads, key_dim: head_dim, value_dim: head_dim, by_row: true }
    }
}
