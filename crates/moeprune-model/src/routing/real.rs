//! What routing is computed in.

use std::{
    cmp::Ordering,
    fmt::Debug,
    iter::Sum,
    ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Sub},
};

use crate::exponential::exponentiate;

/// f32, in which models route, or f64, to compare choices.
pub(crate) trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Mul<Output = Self>
    + MulAssign
    + Div<Output = Self>
    + DivAssign
    + Sub<Output = Self>
    + Sum
    + Send
    + Sync
{
    const LOWEST: Self;

    /// The nearest.
    fn of(value: f64) -> Self;

    /// Replaces each logit by its exponential relative to the largest, and returns their sum.
    fn exponentiate(logits: &mut [Self]) -> Self;

    /// `1 / (1 + exp(−z))`
    fn sigmoid(self) -> Self;

    /// `ln(1 + exp(z))`, which for large `z` is `z`.
    fn softplus(self) -> Self;

    fn sqrt(self) -> Self;

    fn abs(self) -> Self;

    /// A total order.
    fn compare(self, other: Self) -> Ordering;
}

impl Real for f32 {
    const LOWEST: Self = Self::NEG_INFINITY;

    fn of(value: f64) -> Self {
        value as Self
    }

    fn exponentiate(logits: &mut [Self]) -> Self {
        exponentiate(logits, 1.0)
    }

    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    fn softplus(self) -> Self {
        self.max(0.0) + (-self.abs()).exp().ln_1p()
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }

    fn abs(self) -> Self {
        self.abs()
    }

    fn compare(self, other: Self) -> Ordering {
        self.total_cmp(&other)
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

    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }

    fn softplus(self) -> Self {
        self.max(0.0) + (-self.abs()).exp().ln_1p()
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }

    fn abs(self) -> Self {
        self.abs()
    }

    fn compare(self, other: Self) -> Ordering {
        self.total_cmp(&other)
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
