//! What a repair computes, reads and writes, from shapes alone.

use moeprune_core::{ModelSpec, MoeSpec, RepairPasses};
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

/// Codes of at most so many bits are rounded with errors carried to later columns.
const COARSE: u32 = 4;

/// What a repair of one layer takes.
///
/// With `P` pairs of a fitted or held-out token and a surviving expert that receives it, `I` numbers that
/// a down projection reads, `H` that it writes and `S` survivors:
///
/// ```text
/// experts   2 · parameters of an expert · (P + pairs with experts that went)
/// Gram      P · I²                                      (half of the products; it is symmetric)
/// factors   S · ⅔ · I³                                  (Cholesky, and the inverse of its factor)
/// of rows   S · H · ⅓ · I³                              (Cholesky; as if no weight were zero)
/// a sweep   4 · P · I · H + 2 · S · I² · H              (right-hand sides and updates; solving)
/// codes     S · I · H · 700 or S · I · H · (2500 + I)   (of 8 bits; of up to 4, with errors carried)
/// ```
///
/// New weights in codes are rounded in each sweep: with two scales, and to four bits or fewer with three,
/// where each column's error is carried to all later ones (GPTQ). Rounding is not done in products; the
/// numbers are those that products do in the time that was measured: 7 ns per weight and thread, and 16 to
/// 32 (docs/performance.md).
///
/// How often each of them is done is said by [`passes`](Self::passes).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct RepairCost {
    /// What the repair does.
    pub passes: RepairPasses,
    /// Floating-point operations of the experts' forward pass, with and without those that go.
    pub experts: f64,
    /// Of Gram matrices, each taken once.
    pub gram: f64,
    /// Of factors, each taken once.
    pub factors: f64,
    /// Of factors per row of weights, each taken once.
    pub row_factors: f64,
    /// Of one sweep over the survivors.
    pub sweep: f64,
    /// Of rounding the new weights of one sweep to codes; 0 if they are stored as numbers.
    pub rounding: f64,
    /// Of computing all activations again once.
    pub again: f64,
    /// Bytes of all activations.
    pub activation_bytes: f64,
    /// Bytes of all factors, or Gram matrices: one triangle of each.
    pub factor_bytes: f64,
    /// Bytes of the survivors' new weights, if all are replaced, in two bytes per number.
    pub weight_bytes: f64,
    /// Pairs of a token and a surviving expert per column of the down projections.
    pub tokens_per_column: f64,
}

impl RepairCost {
    /// Of a layer of which `kept` experts stay, on so many tokens.
    #[must_use]
    pub fn of_layer(
        spec: &ModelSpec,
        moe: &MoeSpec,
        kept: usize,
        tokens: u64,
        passes: RepairPasses,
    ) -> Self {
        let width = moe.expert_width(spec.hidden) as f64;
        let inner = moe.expert.inner as f64 + f64::from(u8::from(moe.expert.biases));
        let matrices = moe.expert.projections().len() as f64;
        let kept = kept as f64;
        let pairs = tokens as f64 * moe.top_k as f64;
        let gone = pairs * (1.0 - kept / (moe.experts as f64).max(1.0));
        let parameters = matrices * inner * width;
        let has = |times: usize| if times > 0 { 1.0 } else { 0.0 };
        let matrix = has(passes.factorisations + passes.row_factorisations);
        Self {
            passes,
            experts: 2.0 * parameters * (pairs + gone),
            gram: matrix * pairs * inner * inner,
            factors: has(passes.factorisations) * kept * 2.0 / 3.0 * inner.powi(3),
            row_factors: has(passes.row_factorisations) * kept * width * inner.powi(3) / 3.0,
            sweep: 4.0 * pairs * inner * width + 2.0 * kept * inner * inner * width,
            rounding: 0.0,
            again: 2.0 * (matrices - 1.0) * inner * width * pairs,
            activation_bytes: 4.0 * pairs * inner,
            factor_bytes: matrix * 4.0 * kept * inner * (inner + 1.0),
            weight_bytes: 2.0 * kept * inner * width,
            tokens_per_column: pairs / (kept * inner).max(1.0),
        }
    }

    /// The same of weights that are stored in codes of so many bits.
    #[must_use]
    pub fn in_codes(self, moe: &MoeSpec, bits: u32) -> Self {
        let numbers = self.weight_bytes / 2.0;
        let inner = moe.expert.inner as f64;
        let per_number = if bits <= COARSE { 2500.0 + inner } else { 700.0 };
        Self { rounding: numbers * per_number, ..self }
    }

    /// What is cheaper to keep than to compute again, at these rates.
    #[must_use]
    pub fn holding(&self, rates: Rates) -> Holding {
        let all = Holding { activations: true, factors: true };
        let seconds =
            |of: Holding| self.operations(of) / rates.compute + self.moved(of) / rates.disk;
        let is_cheaper_than = |other: Holding| seconds(all) <= seconds(other);
        Holding {
            activations: is_cheaper_than(Holding { activations: false, ..all }),
            factors: is_cheaper_than(Holding { factors: false, ..all }),
        }
    }

    /// Operations of everything, with what is not kept computed again.
    #[must_use]
    pub fn operations(&self, holding: Holding) -> f64 {
        let RepairPasses { reads, sweeps, factorisations, row_factorisations, .. } = self.passes;
        let mut operations = self.experts
            + self.gram
            + factorisations as f64 * self.factors
            + row_factorisations as f64 * self.row_factors
            + sweeps as f64 * (self.sweep + self.rounding);
        if !holding.activations {
            operations += reads as f64 * self.again;
        }
        if !holding.factors {
            // Every sweep takes them again.
            let again = sweeps.saturating_sub(factorisations);
            operations += sweeps as f64 * self.gram + again as f64 * self.factors;
        }
        operations
    }

    /// Bytes that are written to files and read from them.
    #[must_use]
    pub fn moved(&self, holding: Holding) -> f64 {
        let RepairPasses { reads, sweeps, factorisations, .. } = self.passes;
        let activations = if holding.activations { 1 + reads } else { 0 };
        // Gram matrices are written, and factors over them if a later sweep reads them.
        let serve = factorisations > 0 && factorisations < sweeps;
        let factors = if holding.factors { 1 + usize::from(serve) + sweeps } else { 0 };
        activations as f64 * self.activation_bytes
            + factors as f64 * self.factor_bytes
            + (2 * (sweeps + 1)) as f64 * self.weight_bytes
    }

    /// Bytes on disk while the layer is repaired.
    #[must_use]
    pub fn disk(&self, holding: Holding) -> f64 {
        f64::from(u8::from(holding.activations)) * self.activation_bytes
            + f64::from(u8::from(holding.factors)) * self.factor_bytes
    }
}
