//! What a router chose, and what the experts made of it.

use super::statistic::{Shape, Statistic, Statistics, resize_all, row};

/// What a layer's router chose and what the experts made of it. Vectors have one entry per expert,
/// unless they say otherwise. Those that only a run of the model shows are empty in an observation
/// that was made from something else ([`Statistic::of_runs`](super::Statistic)).
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct RoutingSums {
    /// Tokens the router saw.
    pub tokens: u64,
    /// Experts a token goes through.
    pub top_k: usize,
    /// Tokens routed to each expert; they sum to `tokens · top_k`.
    pub counts: Vec<u64>,
    /// `n × n`, row-major: tokens that chose both experts. Symmetric, zero diagonal.
    pub coactivation: Vec<u64>,
    /// Sum of the gate weights each expert was given.
    pub gate_sums: Vec<f64>,
    /// Sum of gate weight × L2 norm of the expert's output; of routers that weigh what experts read
    /// ([`GateSide::Input`](crate::GateSide)) of the norm alone, in which the weight is already.
    pub gated_output_norms: Vec<f64>,
    /// Sum of the L2 norm of the expert's output, before the gate.
    pub output_norms: Vec<f64>,
    /// Largest magnitude in any of the expert's outputs, before the gate: a maximum, not a sum.
    /// Empty in an observation of an older version.
    pub output_peaks: Vec<f64>,
    /// `n × hidden`, row-major: sum of the expert's outputs, before the gate. Empty if they were
    /// not summed.
    pub output_sums: Vec<f64>,
}

impl Statistics for RoutingSums {
    const ROWS: &'static [Statistic<Self>] = &[
        row!(tokens: Count, Scalar, since 1),
        row!(top_k: Constant, Scalar, since 1),
        row!(counts: Count, PerExpert, since 1),
        row!(coactivation: Count, PerPair, since 1).of_runs(),
        row!(gate_sums: Sum, PerExpert, since 1).of_runs(),
        row!(gated_output_norms: Sum, PerExpert, since 1).of_runs(),
        row!(output_norms: Sum, PerExpert, since 1).of_runs(),
        row!(output_peaks: Max, PerExpert, since 2).of_runs(),
        row!(output_sums: SignedSum, PerExpertFeature, since 2).of_runs(),
    ];

    fn experts(&self) -> usize {
        self.counts.len()
    }
}

impl RoutingSums {
    /// All sums zero, outputs not summed.
    #[must_use]
    pub fn new(experts: usize, top_k: usize) -> Self {
        Self::with_outputs(experts, top_k, 0)
    }

    /// All sums zero, outputs of `hidden` values summed.
    #[must_use]
    pub fn with_outputs(experts: usize, top_k: usize, hidden: usize) -> Self {
        let mut sums = Self { top_k, ..Self::default() };
        resize_all(&mut sums, |shape| match shape {
            Shape::Scalar => 1,
            Shape::PerExpert => experts,
            Shape::PerPair => experts * experts,
            Shape::PerExpertFeature | Shape::PerInputFeature => experts * hidden,
        });
        sums
    }

    /// The mean output of an expert over the tokens routed to it, before the gate; zeros for one
    /// that no token reached, and `None` if outputs were not summed.
    #[must_use]
    pub fn mean_output(&self, expert: usize) -> Option<Vec<f64>> {
        let hidden = self.output_sums.len().checked_div(self.experts()).filter(|&h| h > 0)?;
        let sums = self.output_sums.get(expert * hidden..(expert + 1) * hidden)?;
        let tokens = self.counts[expert].max(1) as f64;
        Some(sums.iter().map(|sum| sum / tokens).collect())
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.counts.len()
    }

    /// Sums of an observation that was not made by running the model: which experts tokens were routed
    /// to, and nothing of what those made of them.
    #[must_use]
    pub fn counted(tokens: u64, top_k: usize, counts: Vec<u64>) -> Self {
        Self { tokens, top_k, counts, ..Self::default() }
    }

    /// Whether the counts sum to `tokens · top_k` and the co-activations, if they were taken, to
    /// `tokens · top_k · (top_k − 1)`: cheap, and it catches a wrong stride.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let k = self.top_k as u64;
        self.counts.iter().sum::<u64>() == self.tokens * k
            && (self.coactivation.is_empty()
                || self.coactivation.iter().sum::<u64>() == self.tokens * k * k.saturating_sub(1))
    }
}
