//! About how long it takes to ask a model questions whose experts are read when they are needed.

use moeprune_core::ModelSpec;
use serde::Serialize;

use crate::{
    AnsweringNeed, Model, Rates, StreamingRoom,
    estimate::{active_parameters, duration},
};

/// The work that questions are to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct AnsweringWork {
    /// How often all layers are run, if answers are as short as may be expected.
    pub fewest_passes: u64,
    /// The same, if they are as long as they may be.
    pub most_passes: u64,
    /// Tokens that go through the layers in one of these, on average.
    pub tokens_per_pass: u64,
}

/// About what it takes to ask a model questions whose experts are read when they are needed. Everything in it is
/// an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StreamingEstimate {
    /// At most so many bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of experts that are kept of those that run.
    pub kept_bytes: u64,
    /// Bytes that are read each time that all layers are run.
    pub bytes_per_pass: u64,
    /// Tokens that go through the layers in that.
    pub tokens_per_pass: u64,
    /// How often all layers are run, if answers are as short as may be expected.
    pub fewest_passes: u64,
    /// The same, if they are as long as they may be.
    pub most_passes: u64,
    /// Seconds of the fewest.
    pub fewest_seconds: f64,
    /// Seconds of the most.
    pub most_seconds: f64,
    /// Tokens that go through the layers in a second.
    pub tokens_per_second: f64,
}

impl StreamingEstimate {
    /// Of work with a model, or one of shape `spec` that is made of it.
    ///
    /// ```text
    /// bytes per pass   = Σ over layers of experts · (1 − (1 − k / experts)^tokens) · bytes of one · share that is not kept
    /// seconds per pass = bytes per pass / disk + tokens · 2 · active / compute
    /// ```
    ///
    /// as if each token chose `k` experts at random. Trained routers prefer some experts, which are kept, and reading
    /// overlaps with computing: both make a run faster. Before the first pass the rest of the model is read.
    #[must_use]
    pub fn of(
        model: &dyn Model,
        spec: &ModelSpec,
        (need, room): (&AnsweringNeed, &StreamingRoom),
        work: AnsweringWork,
        rates: Rates,
    ) -> Self {
        let kept = room.experts.min(need.experts);
        let missing = 1.0 - kept as f64 / need.experts.max(1) as f64;
        let tokens = work.tokens_per_pass.max(1);
        let mut read = 0.0;
        for layer in 0..spec.layers.len() {
            let Some(moe) = spec.moe_of(layer) else { continue };
            let parts = spec.layer_parts(layer);
            let experts = parts.iter().filter(|part| part.id.expert().is_some());
            let stored: u64 = experts.map(|part| model.stored_bytes(part.id)).sum();
            let others = 1.0 - moe.top_k as f64 / moe.experts.max(1) as f64;
            read += stored as f64 * (1.0 - others.powf(tokens as f64)) * missing;
        }
        let per_pass =
            read / rates.disk + 2.0 * tokens as f64 * active_parameters(spec) / rates.compute;
        let first = model.weight_bytes().saturating_sub(need.stored_experts) as f64 / rates.disk;
        let seconds = |passes: u64| first + passes as f64 * per_pass;
        Self {
            memory_bytes: need.streamed()
                + room.experts.min(need.experts)
                + (room.pass_tokens as u64)
                    .saturating_sub(need.sequence)
                    .saturating_mul(need.token)
                + (room.positions as u64)
                    .saturating_sub(need.sequence)
                    .saturating_mul(need.position),
            kept_bytes: kept,
            bytes_per_pass: read as u64,
            tokens_per_pass: tokens,
            fewest_passes: work.fewest_passes,
            most_passes: work.most_passes,
            fewest_seconds: seconds(work.fewest_passes),
            most_seconds: seconds(work.most_passes),
            tokens_per_second: tokens as f64 / per_pass.max(1e-9),
        }
    }

    /// One line for the user.
    #[must_use]
    pub fn line(&self, rates: Rates) -> String {
        let bytes = match self.bytes_per_pass {
            few if few < 100_000_000 => format!("{:.1} MB", few as f64 / 1e6),
            many => format!("{:.1} GB", many as f64 / 1e9),
        };
        let range = |few: String, many: String| match few == many {
            true => few,
            false => format!("{few} to {many}"),
        };
        let passes = range(self.fewest_passes.to_string(), self.most_passes.to_string());
        let time = range(duration(self.fewest_seconds), duration(self.most_seconds));
        format!(
            "estimate: about {bytes} are read per pass through the layers, for about {} tokens ({:.1} tokens/s at {} GB/s \
             and {} GFLOP/s); {passes} passes, {time}",
            self.tokens_per_pass,
            self.tokens_per_second,
            rates.disk / 1e9,
            rates.compute / 1e9
        )
    }
}
