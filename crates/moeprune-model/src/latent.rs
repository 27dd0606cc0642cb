//! Experts that read and write another width than that of the hidden states.

use std::sync::Arc;

use candle_core::Tensor;
use moeprune_core::{LinearId, MoeSpec, TensorId};

use crate::{
    ActivationSink, Error, HiddenSum,
    linear::{Linear, Weights},
};

/// What leads to the routed experts and away from the sum of their outputs.
#[derive(Debug)]
pub(crate) struct Latent {
    to: Linear,
    from: Arc<Linear>,
}

impl Latent {
    /// Reads both matrices of a layer; `None` if its experts are as wide as the hidden states.
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        moe: &MoeSpec,
    ) -> Result<Option<Self>, Error> {
        let Some(width) = moe.latent else { return Ok(None) };
        let read =
            |id, rows, inputs| weights.linear(&[(TensorId::linear(layer, id), rows)], inputs);
        let to = read(MoeSpec::TO_LATENT, width, hidden)?;
        let from = Arc::new(read(MoeSpec::FROM_LATENT, hidden, width)?);
        Ok(Some(Self { to, from }))
    }

    /// What experts read of normalised hidden states, `[tokens, latent]`.
    pub(crate) fn enter(
        &self,
        normed: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(MoeSpec::TO_LATENT, normed)?;
        self.to.forward(normed)
    }

    /// The same sum, to which experts add by way of the latent width. `read` is what they read.
    pub(crate) fn leave_from(&self, sum: HiddenSum, read: &Tensor) -> Result<HiddenSum, Error> {
        sum.by_way_of(read, self.output())
    }

    /// What the sum of the experts' outputs goes through.
    pub(crate) fn output(&self) -> Arc<Linear> {
        Arc::clone(&self.from)
    }

    /// A stored weight; `None` where it was widened.
    pub(crate) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match linear {
            MoeSpec::TO_LATENT => self.to.stored(),
            MoeSpec::FROM_LATENT => self.from.stored(),
            _ => Ok(None),
        }
    }
}
