//! What rounding new weights to codes costs.

use moeprune_core::repair::HeldOutError;
use moeprune_linalg::Real;

use crate::{Error, Layer, expert::Expert, residual};

/// By how much more would be missing if the weights of a sweep were not rounded, at tokens that nothing is fitted
/// to, or at all if there are none of these.
pub(crate) struct Rounding<T> {
    /// The first of the tokens.
    first: usize,
    /// `[tokens, width]`; empty as long as no weights in codes are new.
    change: Vec<T>,
}

impl<T: Real> Rounding<T> {
    pub(crate) fn new(layer: &Layer<'_, T>) -> Self {
        let first = if layer.fitted < layer.tokens() { layer.fitted } else { 0 };
        Self { first, change: Vec::new() }
    }

    /// Forgets what was added, before a sweep.
    pub(crate) fn clear(&mut self) {
        self.change.clear();
    }

    /// Adds what became of an expert's weights.
    pub(crate) fn add(
        &mut self,
        layer: &Layer<'_, T>,
        expert: &Expert<'_, T>,
        [wanted, rounded]: [&[T]; 2],
    ) -> Result<(), Error> {
        self.change.resize((layer.tokens() - self.first) * layer.width, T::ZERO);
        let lost: Vec<T> = wanted.iter().zip(rounded).map(|(&w, &r)| w - r).collect();
        residual::subtract_from(&mut self.change, self.first, expert, &lost)
    }

    /// The error without rounding and with it; `None` if no weights are in codes.
    pub(crate) fn cost(&self, layer: &Layer<'_, T>) -> Option<HeldOutError> {
        if self.change.is_empty() {
            return None;
        }
        let rows = &layer.residual[self.first * layer.width..];
        let rows = rows.chunks_exact(layer.width).zip(self.change.chunks_exact(layer.width));
        let squares =
            rows.zip(&layer.token_weights[self.first..]).map(|((row, change), weight)| {
                let without =
                    row.iter().zip(change).map(|(r, c)| (r.to_f64() + c.to_f64()).powi(2));
                weight.to_f64() * without.sum::<f64>()
            });
        let after = layer.error(self.first..layer.tokens());
        Some(HeldOutError { before: squares.sum(), after })
    }
}
