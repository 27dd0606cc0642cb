//! What a layer's router reads.

use candle_core::Tensor;
use moeprune_core::LinearId;
use moeprune_model::{ActivationSink, Error};

/// Keeps what the router read last, `[tokens, hidden]`; `None` of a layer without one.
#[derive(Debug, Default)]
pub(crate) struct RouterInput(pub(crate) Option<Tensor>);

impl ActivationSink for RouterInput {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        if site == LinearId::Router {
            self.0 = Some(input.clone());
        }
        Ok(())
    }
}
