//! What the inputs of a Linear were like.

use super::statistic::{Statistic, Statistics, resize_all, row};

/// Second moments of the input of a Linear.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct InputMoments {
    /// Tokens (rows) that reached the Linear.
    pub tokens: u64,
    /// Forward calls, one per calibration block, in which at least one token did. 0 beside tokens: that is
    /// not known.
    pub calls: u64,
    /// Per input feature: the sum of squares over those tokens.
    pub sum_squares: Vec<f64>,
}

impl Statistics for InputMoments {
    const ROWS: &'static [Statistic<Self>] = &[
        row!(tokens: Count, Scalar, since 1),
        row!(calls: Count, Scalar, since 1),
        row!(sum_squares: Sum, PerInputFeature, since 1),
    ];
}

impl InputMoments {
    /// No tokens yet.
    #[must_use]
    pub fn new(features: usize) -> Self {
        let mut moments = Self::default();
        resize_all(&mut moments, |_| features);
        moments
    }
}
