//! What routing is computed in.

use std::{fmt::Debug, iter::Sum};

use num_traits::{Float, NumAssignOps, float::TotalOrder};

use crate::exponential::exponentiate;

/// f32, in which models route, or f64, to compare choices.
pub(crate) trait Real:
    Float + NumAssignOps + TotalOrder + Sum + Debug + Send + Sync
{
    const LOWEST: Self;

    /// The nearest.
    fn of(value: f64) -> Self;

    /// Replaces each logit by its exponential relative to the largest, and returns their sum.
    fn exponentiate(logits: &mut [Self]) -> Self;

    /// `1 / (1 + exp(−z))`
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }

    /// `ln(1 + exp(z))`, which for large `z` is `z`.
    fn softplus(self) -> Self {
        self.max(Self::zero()) + (-self.abs()).exp().ln_1p()
    }
}

impl Real for f32 {
    const LOWEST: Self = Self::NEG_INFINITY;

    fn of(value: f64) -> Self {
        value as Self
    }

    fn exponentiate(logits: &mut [Self]) -> Self {
        exponentiate(logits, 1.0)
    }
}

impl Real for f64 {
    const LOWEST: Self = Self::NEG_INFINITY;

    fn of(value: f64) -> Self {
        value
    }

    fn exponentiate(logits: &mut [Self]) -> Self {
        let largest = logits.iter().copied().fold(Self::LOWEST, Self::max);
        for logit in &mut *logits {
            *logit = (*logit - largest).exp();
        }
        logits.iter().copied().sum()
    }
}

pub(super) fn first_largest<R: Real>(values: &[R]) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}
