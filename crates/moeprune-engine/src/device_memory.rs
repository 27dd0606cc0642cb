//! How much of a device's memory a run will need, from shapes alone.

use candle_core::DType;
use moeprune_capture::DEVICE_EXPERT_ROWS;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{AttentionSpec, CorpusTag, FeedForward, ModelSpec};
use moeprune_model::DEVICE_QUERIES;

use crate::MemoryNeed;

/// What the driver, cuBLAS and kernels take.
pub(crate) const FIXED: u64 = 1 << 30;

/// Experts on the device at a time: one in use, one that was brought, and those of which parts are
/// still on their way back.
const EXPERTS: u64 = 6;

/// The most memory a run holds on a device at a time, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceNeed {
    micro_batch: usize,
    /// Hidden states of all blocks, as often as they are held.
    hidden_states: u64,
    /// A layer without its experts.
    trunk: u64,
    /// Experts in passing.
    experts: u64,
    /// All experts of the largest layer.
    layer: u64,
    /// What a micro-batch becomes on its way through a trunk, or tokens through an expert.
    activations: u64,
}

impl DeviceNeed {
    /// Of a run over the calibration blocks of `tag`, computing in `dtype`.
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        tag: &CorpusTag,
        pruning: bool,
        dtype: DType,
        micro_batch: usize,
    ) -> Self {
        let size = dtype.size_in_bytes() as u64;
        let host = MemoryNeed::of(checkpoint, tag.tokens(), pruning);
        let length = tag.sequence_len;
        let batch = (micro_batch as u64).min(tag.samples.max(1));
        let spec = checkpoint.spec();
        Self {
            micro_batch,
            hidden_states: host.hidden_states / 4 * size,
            trunk: host.trunk,
            experts: EXPERTS * host.expert,
            layer: host.layer_experts,
            activations: trunk_activations(spec, size, batch, length)
                .max(expert_activations(spec, size)),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.hidden_states + self.trunk + self.experts + self.activations + FIXED
    }

    /// With all experts of a layer held instead of few in passing.
    pub(crate) fn total_with_layer(&self) -> u64 {
        self.total() - self.experts + self.layer + self.experts / EXPERTS
    }

    /// One line for the user.
    pub(crate) fn line(&self, free: u64) -> String {
        format!(
            "needs up to {} of the device's memory, {} are free: {} for hidden states, {} for what \
             {} in a micro-batch become, the rest for weights in passing",
            gigabytes(self.total()),
            gigabytes(free),
            gigabytes(self.hidden_states),
            gigabytes(self.activations),
            match self.micro_batch {
                1 => "1 block".into(),
                n => format!("{n} blocks"),
            },
        )
    }

    /// What would fit, in words.
    pub(crate) fn remedy(&self, free: u64, of: impl Fn(usize) -> Self) -> String {
        let smaller = (1..self.micro_batch).rev().find(|&size| of(size).total() <= free);
        if let Some(size) = smaller {
            return format!("--micro-batch {size} would fit");
        }
        let one = of(1);
        let rest = one.total() - one.hidden_states;
        match free.checked_sub(rest).filter(|_| one.hidden_states > 0) {
            Some(room) if room > 0 => format!(
                "with --micro-batch 1, hidden states of {:.0} % as many tokens would fit: use fewer \
                 --samples or a shorter --seq-len",
                (100.0 * room as f64 / one.hidden_states as f64).floor()
            ),
            _ => format!(
                "one expert at a time with a single block already needs {}: use a shorter \
                 --seq-len, a larger device, or --device cpu",
                gigabytes(rest)
            ),
        }
    }
}

/// Activations of `blocks` sequences of `length` tokens in a layer's trunk, `size` bytes each.
fn trunk_activations(spec: &ModelSpec, size: u64, blocks: u64, length: u64) -> u64 {
    let hidden = spec.hidden as u64;
    let attention = || spec.layers.iter().map(|layer| &layer.attention);
    let heads = attention().map(AttentionSpec::heads).max().unwrap_or(0) as u64;
    let attention = attention().map(AttentionSpec::row_width).max().unwrap_or(0) as u64;
    let inner = |layer: &moeprune_core::LayerSpec| match &layer.feed_forward {
        FeedForward::Dense(mlp) => (mlp.inner, 0),
        FeedForward::Moe(moe) => (moe.residual.map_or(0, |mlp| mlp.inner), moe.experts),
        _ => (0, 0),
    };
    let (inner, experts) = spec
        .layers
        .iter()
        .map(inner)
        .fold((0, 0), |(a, b), (inner, experts)| (a.max(inner), b.max(experts)));
    // The residual stream, what was normed and what is added; queries, keys and values as they
    // come, turned and by head; an MLP's two halves and their product. In f32 what the router reads
    // and gives.
    let token =
        size * (6 * hidden + 3 * attention + 4 * inner as u64) + 4 * (hidden + experts as u64);
    // Scores of a few queries of one sequence, and the values they weigh.
    let scores = heads * (DEVICE_QUERIES as u64).min(length) * length * 2 * size;
    blocks * length * token + scores
}

/// Activations of the tokens that go through an expert together.
fn expert_activations(spec: &ModelSpec, size: u64) -> u64 {
    let inner = spec.layers.iter().filter_map(|l| l.moe()).map(|m| m.expert.inner).max();
    size * DEVICE_EXPERT_ROWS as u64 * (4 * spec.hidden as u64 + 4 * inner.unwrap_or(0) as u64)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn need(micro_batch: usize) -> DeviceNeed {
        DeviceNeed {
            micro_batch,
            hidden_states: 8 * GB,
            trunk: GB,
            experts: GB,
            layer: 20 * GB,
            activations: micro_batch as u64 * GB,
        }
    }

    fn check(micro_batch: usize, free: u64, want: &str) {
        let remedy = need(micro_batch).remedy(free, need);
        assert!(remedy.contains(want), "{remedy}");
    }

    #[test]
    fn remedies_are_what_fits() {
        check(8, need(5).total(), "--micro-batch 5 would fit");
        check(1, need(1).total() - 4 * GB, "hidden states of 50 % as many tokens would fit");
        check(8, need(1).total() - 4 * GB, "with --micro-batch 1, hidden states of 50 %");
        check(2, GB, "--device cpu");
    }
}
