//! The types in which routing is computed.

use std::{
    iter::Sum,
    ops::{Add, AddAssign, DivAssign, MulAssign},
};

use crate::exponential::exponentiate;

/// f32 in a forward pass, f64 where choices are compared.
pub(super) trait Real:
    Copy + PartialOrd + From<f32> + Sum + Add<Output = Self> + AddAssign + MulAssign + DivAssign
{
    const LOWEST: Self;

    fn from_f64(value: f64) -> Self;

    /// Replaces each logit by its exponential relative to the largest, and returns their sum.
    fn exponentiate(logits: &mut [Self]) -> Self;

    /// `1 / (1 + exp(−x))`
    fn sigmoid(self) -> Self;

    /// `sqrt(ln(1 + exp(x)))`
    fn sqrt_softplus(self) -> Self;
}

impl Real for f32 {
    const LOWEST: Self = Self::NEG_INFINITY;

    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn exponentiate(logits: &mut [Self]) -> Self {
        exponentiate(logits, 1.0)
    }

    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    fn sqrt_softplus(self) -> Self {
        // ln(1 + exp(x)), which for large x is x.
        (self.max(0.0) + (-self.abs()).exp().ln_1p()).sqrt()
    }
}

impl Real for f64 {
    const LOWEST: Self = Self::NEG_INFINITY;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn exponentiate(logits: &mut [Self]) -> Self {
        let largest = logits.iter().copied().fold(Self::LOWEST, Self::max);
        for logit in &mut *logits {
            *logit = (*logit - largest).exp();
        }
        logits.iter().copied().sum()
    }

    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    fn sqrt_softplus(self) -> Self {
        (self.max(0.0) + (-self.abs()).exp().ln_1p()).sqrt()
    }
}
