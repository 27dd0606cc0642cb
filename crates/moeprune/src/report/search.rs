//! What a search tried, as part of a report.

use serde::{Deserialize, Serialize};

use crate::recipe::StageChoice;

/// What a search tried and found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SearchReport {
    /// Calibration blocks that statistics were taken on.
    pub observed_blocks: usize,
    /// Blocks of the calibration text that candidates were scored on, which share no token with those.
    pub held_out_blocks: usize,
    /// Mean negative log-likelihood of the unpruned model on these, in nats a token.
    pub unpruned: f64,
    /// In the order they were tried.
    pub candidates: Vec<Candidate>,
}

/// One way to reach the total.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Candidate {
    /// Share of the experts that goes first.
    pub expert_sparsity: f64,
    /// By which they go.
    pub criterion: StageChoice,
    /// How the ratio of the rest is split over the layers.
    pub allocation: StageChoice,
    /// Mean negative log-likelihood on the held-out blocks, in nats a token.
    pub nll: f64,
    /// Standard error of its difference to the best one's, block by block; nothing of the best one.
    pub stderr_to_best: Option<f64>,
    /// Whether this is what was chosen.
    pub chosen: bool,
}
