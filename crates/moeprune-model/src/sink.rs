//! Watching a forward pass.

use candle_core::Tensor;
use moeprune_core::LinearId;

use crate::Error;

/// Receives the activations of a layer while it runs.
///
/// [`Layer::forward`](crate::Layer::forward) calls it from one thread, in the order
/// in which the layer computes: attention, then Arctic's residual MLP or the dense one, then the
/// router, then the experts by ascending index. Rows are the tokens of the batch, sequence after
/// sequence. Tensors are in the layer's compute type and on its device, and are not changed
/// afterwards, so a sink may keep a clone.
///
/// Every method does nothing unless it is implemented. An error ends the forward pass; wrap one
/// of your own in [`Error::Sink`].
///
/// ```
/// use candle_core::Tensor;
/// use moeprune_core::LinearId;
/// use moeprune_model::{ActivationSink, Error, RoutingChoice};
///
/// /// How many tokens each expert got.
/// struct Load(Vec<u64>);
///
/// impl ActivationSink for Load {
///     fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
///         for &expert in choice.indices {
///             self.0[expert as usize] += 1;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait ActivationSink {
    /// The input of a Linear, `[tokens, features]`.
    ///
    /// `site` is an [input site](moeprune_core::LinearShape::reads): Linears that read the same vector are
    /// passed once. Sites of an expert get only the tokens routed to it, and are not called when
    /// there are none.
    ///
    /// # Errors
    /// Any error of the sink; it ends the forward pass.
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        let _ = (site, input);
        Ok(())
    }

    /// What the router chose, once per layer with experts and call.
    ///
    /// # Errors
    /// Any error of the sink; it ends the forward pass.
    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        let _ = choice;
        Ok(())
    }

    /// The output of an expert for the tokens routed to it, `[tokens, hidden]`, before it is
    /// multiplied by `gates`, one per token: the router's weights, or 1 where those multiply what the
    /// expert reads ([`GateSide`](moeprune_core::GateSide)).
    ///
    /// # Errors
    /// Any error of the sink; it ends the forward pass.
    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), Error> {
        let _ = (expert, output, gates);
        Ok(())
    }
}

/// A sink that looks at nothing.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit")]
pub struct NoSink;

impl ActivationSink for NoSink {}

/// The experts chosen for each token of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a view the layer fills")]
pub struct RoutingChoice<'a> {
    /// Experts there are.
    pub experts: usize,
    /// Tokens routed.
    pub tokens: usize,
    /// Experts a token goes through.
    pub top_k: usize,
    /// `tokens · top_k` expert indices; those of a token stand together, the largest weight first
    /// and the lower index first among equals.
    pub indices: &'a [u32],
    /// The weights of the same experts, as they are really used (renormalised if the model does).
    pub weights: &'a [f32],
}
