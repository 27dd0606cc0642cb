//! What a repair computes, reads and writes, from shapes alone.

use moeprune_core::{ModelSpec, MoeSpec};
use serde::Serialize;

use crate::Rates;

/// Which numbers of a layer are kept in files while it is repaired; the others are computed again whenever
/// they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holding {
    /// What down projections read.
    pub activations: bool,
    /// The factors of their Gram matrices.
    pub factors: bool,
}

/// What a repair of one layer takes.
///
/// With `P` pairs of a fitted or held-out token and a surviving expert that receives it, `I` numbers that
/// a down projection reads, `H` that it writes, `S` survivors and `s` sweeps:
///
/// ```text
/// experts   2 · parameters of an expert · (P + pairs with experts that went)
/// Gram      P · I²                                      (half of the products; it is symmetric)
/// factors   S · ⅔ · I³                                  (Cholesky, and the inverse of its factor)
/// a sweep   4 · P · I · H + 2 · S · I² · H              (right-hand sides and updates; solving)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct RepairCost {
    /// Floating-point operations of the experts' forward pass, with and without those that go.
    pub experts: f64,
    /// Of Gram matrices, each taken once.
    pub gram: f64,
    /// Of factors, each taken once.
    pub factors: f64,
    /// Of one sweep over the survivors.
    pub sweep: f64,
    /// Of computing all activations again once.
    pub again: f64,
    /// Bytes of all activations.
    pub activation_bytes: f64,
    /// Bytes of all factors.
    pub factor_bytes: f64,
    /// Bytes of the survivors' new weights, if all are replaced, in two bytes per number.
    pub weight_bytes: f64,
    /// Pairs of a token and a surviving expert per column of the down projections.
    pub tokens_per_column: f64,
}

/// How often factors are taken: before the first sweep, and after the first two with another ridge.
const FACTORED: f64 = 3.0;

impl RepairCost {
    /// Sweeps over the experts at most, as the built-in repair does them.
    pub const SWEEPS: f64 = 4.0;

    /// Of a layer of which `kept` experts stay, on so many tokens.
    #[must_use]
    pub fn of_layer(spec: &ModelSpec, moe: &MoeSpec, kept: usize, tokens: u64) -> Self {
        let width = moe.expert_width(spec.hidden) as f64;
        let inner = moe.expert.inner as f64 + f64::from(u8::from(moe.expert.biases));
        let matrices = moe.expert.projections().len() as f64;
        let kept = kept as f64;
        let pairs = tokens as f64 * moe.top_k as f64;
        let gone = pairs * (1.0 - kept / (moe.experts as f64).max(1.0));
        let parameters = matrices * inner * width;
        Self {
            experts: 2.0 * parameters * (pairs + gone),
            gram: pairs * inner * inner,
            factors: kept * 2.0 / 3.0 * inner.powi(3),
            sweep: 4.0 * pairs * inner * width + 2.0 * kept * inner * inner * width,
            again: 2.0 * (matrices - 1.0) * inner * width * pairs,
            activation_bytes: 4.0 * pairs * inner,
            factor_bytes: 8.0 * kept * inner * inner,
            weight_bytes: 2.0 * kept * inner * width,
            tokens_per_column: pairs / (kept * inner).max(1.0),
        }
    }

    /// What is cheaper to keep than to compute again, at these rates.
    #[must_use]
    pub fn holding(&self, rates: Rates) -> Holding {
        // Read for Gram matrices, each sweep, and the check on held-out tokens.
        let reads = 2.0 + Self::SWEEPS;
        let keep = |bytes: f64, writes: f64, reads: f64| bytes * (writes + reads) / rates.disk;
        let again = |operations: f64, times: f64| operations * times / rates.compute;
        let activations = keep(self.activation_bytes, 1.0, reads) <= again(self.again, reads);
        let factors = keep(self.factor_bytes, FACTORED, Self::SWEEPS)
            <= again(self.gram + self.factors, Self::SWEEPS - FACTORED)
                + again(self.gram, FACTORED - 1.0);
        Holding { activations, factors }
    }

    /// Operations of everything, with what is not kept computed again.
    #[must_use]
    pub fn operations(&self, holding: Holding) -> f64 {
        let mut operations =
            self.experts + self.gram + FACTORED * self.factors + Self::SWEEPS * self.sweep;
        if !holding.activations {
            operations += (2.0 + Self::SWEEPS) * self.again;
        }
        if !holding.factors {
            operations += (FACTORED - 1.0) * self.gram
                + (Self::SWEEPS - FACTORED) * (self.gram + self.factors);
        }
        operations
    }

    /// Bytes that are written to files and read from them, new weights aside.
    #[must_use]
    pub fn moved(&self, holding: Holding) -> f64 {
        let activations = if holding.activations { 3.0 + Self::SWEEPS } else { 0.0 };
        let factors = if holding.factors { FACTORED + Self::SWEEPS } else { 0.0 };
        activations * self.activation_bytes
            + factors * self.factor_bytes
            + 2.0 * (Self::SWEEPS + 1.0) * self.weight_bytes
    }

    /// Bytes on disk while the layer is repaired.
    #[must_use]
    pub fn disk(&self, holding: Holding) -> f64 {
        f64::from(u8::from(holding.activations)) * self.activation_bytes
            + f64::from(u8::from(holding.factors)) * self.factor_bytes
    }
}
