//! Tokens on their way to the experts of a layer.

use std::{ops::Range, sync::Arc};

use candle_core::Tensor;
use moeprune_core::GateSide;

use crate::{Error, Router, norm::RmsNorm, ops, routing::ExpertTokens};

/// Tokens on their way to the experts of a layer.
#[derive(Debug)]
pub struct Routed {
    read: Tensor,
    /// What that still goes through.
    norm: Option<Arc<RmsNorm>>,
    by_expert: ExpertTokens,
    side: GateSide,
    /// What outputs are multiplied by where inputs already are.
    ones: Vec<f32>,
}

impl Routed {
    /// Experts read `read`, `[tokens, width]`, through `norm` if there is one.
    pub(crate) fn new(
        read: Tensor,
        norm: Option<Arc<RmsNorm>>,
        by_expert: ExpertTokens,
        side: GateSide,
    ) -> Self {
        let ones = match side {
            GateSide::Output => Vec::new(),
            GateSide::Input => vec![1.0; by_expert.most()],
        };
        Self { read, norm, by_expert, side, ones }
    }

    /// The same tokens, sent on their way by another router that reads `read`, `[tokens, hidden]`: what a sink
    /// received as the input of [`LinearId::Router`](moeprune_core::LinearId).
    ///
    /// # Errors
    /// If a tensor operation fails or a logit is not finite.
    pub fn under(&self, router: &Router, read: &Tensor) -> Result<Self, Error> {
        let by_expert = router.by_expert(read)?;
        let norm = self.norm.as_ref().map(Arc::clone);
        Ok(Self::new(self.read.clone(), norm, by_expert, router.gate_side()))
    }

    /// What of an expert the gate weights multiply.
    #[must_use]
    pub fn gate_side(&self) -> GateSide {
        self.side
    }

    /// The rows that go to `expert` and the router's weights for them, before or after the
    /// expert.
    #[must_use]
    pub fn gates(&self, expert: usize) -> (&[u32], &[f32]) {
        self.by_expert.of(expert)
    }

    /// The rows (tokens of the call, ascending) that go to `expert`, and what its outputs are multiplied
    /// by: their gate weights, or 1 where those multiply what the expert reads
    /// ([`GateSide::Input`]).
    #[must_use]
    pub fn tokens(&self, expert: usize) -> (&[u32], &[f32]) {
        let (rows, gates) = self.by_expert.of(expert);
        match self.side {
            GateSide::Output => (rows, gates),
            GateSide::Input => (rows, &self.ones[..rows.len()]),
        }
    }

    /// What an expert reads for some of its tokens, counted within these, `[tokens, width]`: normalised, in
    /// the latent width of a block that has such, and multiplied by their gate weights if the router does that.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn input(&self, expert: usize, places: Range<usize>) -> Result<Tensor, Error> {
        let (rows, gates) = self.by_expert.of(expert);
        let normed = self.normed(&rows[places.clone()])?;
        match self.side {
            GateSide::Output => Ok(normed),
            GateSide::Input => {
                let gates = &gates[places];
                let gates = Tensor::from_slice(gates, (gates.len(), 1), normed.device())?;
                Ok(normed.broadcast_mul(&gates.to_dtype(normed.dtype())?)?)
            }
        }
    }

    /// The same with all rows normalised already: each once, not once for each of its experts. It takes memory for
    /// them, and changes no bit.
    pub(crate) fn normalised(self) -> Result<Self, Error> {
        let Some(norm) = &self.norm else { return Ok(self) };
        let read = norm.forward(&self.read)?;
        Ok(Self { read, norm: None, ..self })
    }

    /// The same for these rows and any expert, before any gate, `[rows, width]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn normed(&self, rows: &[u32]) -> Result<Tensor, Error> {
        let read = ops::gather_rows(&self.read, rows)?;
        match &self.norm {
            Some(norm) => norm.forward(&read),
            None => Ok(read),
        }
    }

    /// Experts that get tokens, ascending.
    pub(crate) fn busy(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_expert.iter().map(|(expert, ..)| expert)
    }
}
