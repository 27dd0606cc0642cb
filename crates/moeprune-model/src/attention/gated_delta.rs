//! Gated delta nets.

use candle_core::Tensor;
use candle_nn::ops::sigmoid;
use moeprune_core::{DeltaProjections, GatedDeltaNet, LinearId, ModelSpec, TensorId};

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

/// A gated delta net.
#[derive(Debug)]
pub(crate) struct GatedDelta {
    shape: GatedDeltaNet,
    /// All matrices that read the input.
    inputs: Linear,
    convolution: Convolution,
    /// `[value_heads]`
    log_decay: Tensor,
    /// `[value_heads]`
    decay_bias: Tensor,
    norm: RmsNorm,
    output: Linear,
}

/// Rows of what the input is projected to.
struct Projected {
    /// Queries, keys and values.
    qkv: Tensor,
    z: Tensor,
    b: Tensor,
    a: Tensor,
}

impl GatedDelta {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        shape: &GatedDeltaNet,
    ) -> Result<Self, Error> {
        let GatedDeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = *shape;
        if [key_heads, value_heads, key_dim, value_dim].contains(&0) || value_heads % key_heads != 0
        {
            return Err(Error::Spec(format!(
                "{key_heads} key heads of width {key_dim}, {value_heads} value heads of width \
                 {value_dim}: value heads must be a multiple of key heads, and no width 0"
            )));
        }
        let id = |tensor| TensorId::Layer(layer, tensor);
        let inputs: Vec<_> = (shape.inputs().into_iter())
            .map(|(linear, rows)| (TensorId::linear(layer, linear), rows))
            .collect();
        let output = [(TensorId::linear(layer, GatedDeltaNet::OUTPUT), spec.hidden)];
        let convolved = [GatedDeltaNet::CONVOLUTION];
        let (channels, kernel) = (shape.channels(), shape.kernel);
        let norm = id(GatedDeltaNet::NORM);
        Ok(Self {
            inputs: weights.linear(&inputs, spec.hidden)?,
            convolution: Convolution::load(weights, layer, &convolved, channels, kernel)?,
            log_decay: weights.wide(id(GatedDeltaNet::LOG_DECAY), &[value_heads])?,
            decay_bias: weights.wide(id(GatedDeltaNet::DECAY_BIAS), &[value_heads])?,
            norm: RmsNorm::load_wide(weights, norm, value_dim, spec.norm_eps)?,
            output: weights.linear(&output, shape.value_width())?,
            shape: shape.clone(),
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        if linear == GatedDeltaNet::OUTPUT {
            return self.output.stored();
        }
        self.inputs.stored_part(linear, &self.shape.inputs())
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        if let Some((first, _)) = self.shape.inputs().first() {
            sink.linear_input(*first, x)?;
        }
        let Projected { qkv, z, b, a } = self.split(&self.inputs.forward(x)?)?;
        let qkv = self.convolution.forward(&qkv, lens, caches)?.silu()?;
        let (keys, values) = (self.shape.key_width(), self.shape.value_width());
        let inputs = DeltaInputs {
            queries: qkv.narrow(1, 0, keys)?.contiguous()?,
            keys: qkv.narrow(1, keys, keys)?.contiguous()?,
            values: qkv.narrow(1, 2 * keys, values)?.contiguous()?,
            decay: decay(&a, &self.log_decay, &self.decay_bias)?,
            beta: sigmoid(&b.to_dtype(wide(b.dtype()))?)?,
        };
        let mixed = self.heads().run(inputs, lens, caches)?;
        cache::advance(caches, lens);
        let gates = z.to_dtype(mixed.dtype())?.silu()?;
        let mixed = (self.norm.forward_in_pieces(&mixed)? * gates)?.to_dtype(x.dtype())?;
        sink.linear_input(GatedDeltaNet::OUTPUT, &mixed)?;
        self.output.forward(&mixed)
    }

    fn heads(&self) -> DeltaHeads {
        let GatedDeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = self.shape;
        DeltaHeads { key_heads, value_heads, key_dim, value_dim, by_row: false }
    }

    /// Takes what the input was projected to apart.
    fn split(&self, projected: &Tensor) -> Result<Projected, Error> {
        let GatedDeltaNet { key_heads, value_heads, key_dim, .. } = self.shape;
        let (channels, values) = (self.shape.channels(), self.shape.value_width());
        match self.shape.projections {
            DeltaProjections::Apart => {
                let part =
                    |start, width| Ok::<_, Error>(projected.narrow(1, start, width)?.contiguous()?);
                Ok(Projected {
                    qkv: part(0, channels)?,
                    z: part(channels, values)?,
                    b: part(channels + values, value_heads)?,
                    a: part(channels + values + value_heads, value_heads)?,
                })
            }
            DeltaProjections::ByKeyHead => {
                let (each_values, each) = (values / key_heads, value_heads / key_heads);
                let of_heads = |start, width: usize| {
                    let rows = projected.narrow(1, start, width)?;
                    rows.contiguous()?.reshape(((), key_heads, width / key_heads))
                };
                let qkvz = of_heads(0, channels + values)?;
                let ba = of_heads(channels + values, 2 * value_heads)?;
                let part = |heads: &Tensor, start: usize, width: usize| {
                    heads.narrow(2, start, width)?.contiguous()?.flatten_from(1)
                };
                let (query, key) = (part(&qkvz, 0, key_dim)?, part(&qkvz, key_dim, key_dim)?);
                let value = part(&qkvz, 2 * key_dim, each_values)?;
                Ok(Projected {
                    qkv: Tensor::cat(&[query, key, value], 1)?,
                    z: part(&qkvz, 2 * key_dim + each_values, each_values)?,
                    b: part(&ba, 0, each)?,
                    a: part(&ba, each, each)?,
                })
            }
        }
    }
}
