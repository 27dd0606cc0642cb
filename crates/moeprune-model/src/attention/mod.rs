//! Attention, causal: one file per kind of how queries, keys and values come about, and one way from
//! there on (`causal`).

use candle_core::Tensor;
use moeprune_core::{AttentionSpec, LinearId, ModelSpec};

use self::{grouped::Grouped, latent::Latent};
use crate::{ActivationSink, Error, cache::SequenceCache, linear::Weights, runnable};

mod causal;
mod device;
mod grouped;
mod heads;
mod host;
mod latent;

pub use device::DEVICE_QUERIES;

/// The attention of a layer.
#[derive(Debug)]
pub(crate) enum Attention {
    Grouped(Box<Grouped>),
    Latent(Box<Latent>),
}

impl Attention {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
    ) -> Result<Self, Error> {
        let Some(parts) = spec.layers.get(layer) else {
            return Err(Error::Spec(format!("no layer {layer}")));
        };
        match &parts.attention {
            AttentionSpec::Grouped(shape) => {
                Ok(Self::Grouped(Box::new(Grouped::load(weights, layer, spec, shape)?)))
            }
            AttentionSpec::Latent(shape) => {
                Ok(Self::Latent(Box::new(Latent::load(weights, layer, spec.hidden, shape)?)))
            }
            AttentionSpec::Opaque(_) => Err(runnable::opaque_attention(layer)),
        }
    }

    /// A stored weight, sharing the memory of the one that runs; `None` where it was widened, and for
    /// a Linear that it does not have.
    pub(crate) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match self {
            Self::Grouped(grouped) => grouped.stored(linear),
            Self::Latent(latent) => latent.stored(linear),
        }
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
        }
    }
}
