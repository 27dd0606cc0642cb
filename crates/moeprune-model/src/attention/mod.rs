//! Attention, causal: one file per kind. Where queries look at keys, there is one way from there on
//! (`causal`); where a state takes the place of keys and values, too (`delta_rule`).

use candle_core::Tensor;
use moeprune_core::{AttentionSpec, LinearId, ModelSpec};

use self::{
    gated_delta::GatedDelta, grouped::Grouped, kimi_delta::KimiDelta, latent::Latent,
    mamba2::Mamba2, short_convolution::ShortConvolution,
};
use crate::{ActivationSink, Error, cache::SequenceCache, linear::Weights, runnable};

mod causal;
mod convolution;
mod delta_rule;
mod device;
mod gated_delta;
mod grouped;
mod head_states;
mod heads;
mod host;
mod kimi_delta;
mod latent;
mod lightning_indexer;
mod mamba2;
mod selective_state;
mod short_convolution;

pub use device::DEVICE_QUERIES;

/// The attention of a layer.
#[derive(Debug)]
pub(crate) enum Attention {
    Grouped(Box<Grouped>),
    Latent(Box<Latent>),
    GatedDelta(Box<GatedDelta>),
    KimiDelta(Box<KimiDelta>),
    ShortConvolution(Box<ShortConvolution>),
    Mamba2(Box<Mamba2>),
}

impl Attention {
    /// Reads the attention of a layer; `None` if it has none.
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
    ) -> Result<Option<Self>, Error> {
        let Some(parts) = spec.layers.get(layer) else {
            return Err(Error::Spec(format!("no layer {layer}")));
        };
        Ok(Some(match &parts.attention {
            AttentionSpec::Grouped(shape) => {
                Self::Grouped(Box::new(Grouped::load(weights, layer, spec, shape)?))
            }
            AttentionSpec::Latent(shape) => {
                Self::Latent(Box::new(Latent::load(weights, layer, spec.hidden, shape)?))
            }
            AttentionSpec::GatedDelta(shape) => {
                Self::GatedDelta(Box::new(GatedDelta::load(weights, layer, spec, shape)?))
            }
            AttentionSpec::KimiDelta(shape) => {
                Self::KimiDelta(Box::new(KimiDelta::load(weights, layer, spec, shape)?))
            }
            AttentionSpec::ShortConvolution(shape) => {
                let loaded = ShortConvolution::load(weights, layer, spec.hidden, shape)?;
                Self::ShortConvolution(Box::new(loaded))
            }
            AttentionSpec::Mamba2(shape) => {
                Self::Mamba2(Box::new(Mamba2::load(weights, layer, spec, shape)?))
            }
            AttentionSpec::None => return Ok(None),
            AttentionSpec::Opaque(_) => return Err(runnable::opaque_attention(layer)),
        }))
    }

    /// A stored weight, sharing the memory of the one that runs; `None` where it was widened, and for
    /// a Linear that it does not have.
    pub(crate) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match self {
            Self::Grouped(grouped) => grouped.stored(linear),
            Self::Latent(latent) => latent.stored(linear),
            Self::GatedDelta(delta) => delta.stored(linear),
            Self::KimiDelta(delta) => delta.stored(linear),
            Self::ShortConvolution(convolution) => convolution.stored(linear),
            Self::Mamba2(mamba) => mamba.stored(linear),
        }
    }

    /// Whether it sees the keys that a layer before it selected.
    pub(crate) fn takes_over_keys(&self) -> bool {
        matches!(self, Self::Latent(latent) if latent.takes_over_keys())
    }

    /// `x` holds `lens[i]` tokens of sequence `i`, one sequence after the other,
    /// `[tokens, hidden]`; each continues what its cache holds, and is added to it.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        match self {
            Self::Grouped(grouped) => grouped.forward(x, lens, caches, sink),
            Self::Latent(latent) => latent.forward(x, lens, caches, sink),
            Self::GatedDelta(delta) => delta.forward(x, lens, caches, sink),
            Self::KimiDelta(delta) => delta.forward(x, lens, caches, sink),
            Self::ShortConvolution(convolution) => convolution.forward(x, lens, caches, sink),
            Self::Mamba2(mamba) => mamba.forward(x, lens, caches, sink),
        }
    }
}

/// `ln(1 + exp(x))`
fn softplus(x: &Tensor) -> Result<Tensor, Error> {
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}
