//! Routed mass with all experts and with those that stay, on the same inputs.

use std::sync::Arc;

use candle_core::Tensor;
use moeprune_core::RoutedMass;
use moeprune_model::{Error, Router, RoutingChoice};

/// Sums the mass that a layer routes beside the mass that its unpruned router would.
#[derive(Debug, Clone)]
pub(crate) struct MassSums {
    unpruned: Arc<Router>,
    tokens: usize,
    before: f64,
    after: f64,
}

impl MassSums {
    pub(crate) fn new(unpruned: Arc<Router>) -> Self {
        Self { unpruned, tokens: 0, before: 0.0, after: 0.0 }
    }

    /// What the layer's router reads.
    pub(crate) fn add_input(&mut self, input: &Tensor) -> Result<(), Error> {
        self.before += self.unpruned.mass(input)?;
        Ok(())
    }

    /// What it chose.
    pub(crate) fn add_choice(&mut self, choice: &RoutingChoice<'_>) {
        self.tokens += choice.tokens;
        self.after += choice.weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
    }

    /// The means; `None` if no token came.
    pub(crate) fn means(&self) -> Option<RoutedMass> {
        let tokens = self.tokens as f64;
        let mass = RoutedMass { before: self.before / tokens, after: Some(self.after / tokens) };
        (self.tokens > 0).then_some(mass)
    }
}
