//! How much of a device's memory a run will need, from shapes alone.

use candle_core::DType;
use moeprune_capture::DEVICE_EXPERT_ROWS;
use moeprune_core::{
    CorpusTag, LinearId, LinearShape, MlpProjection::Up, ModelSpec, MoeSpec, Part,
};
use moeprune_model::DEVICE_QUERIES;

use crate::{MemoryNeed, Model, Remedy, memory::Largest};

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
        model: &dyn Model,
        tag: &CorpusTag,
        pruning: bool,
        dtype: DType,
        micro_batch: usize,
    ) -> Self {
        let size = dtype.size_in_bytes() as u64;
        let host = MemoryNeed::of(model, tag.tokens(), pruning);
        let length = tag.sequence_len;
        let batch = (micro_batch as u64).min(tag.samples.max(1));
        let spec = model.spec();
        let largest = Largest::of(spec, |part| brought_bytes(model, part, dtype));
        Self {
            micro_batch,
            hidden_states: host.hidden_states / 4 * size,
            trunk: largest.trunk,
            experts: EXPERTS * largest.expert,
            layer: largest.layer_experts,
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

    /// What would fit.
    pub(crate) fn remedy(&self, free: u64, of: impl Fn(usize) -> Self) -> Remedy {
        let smaller = (1..self.micro_batch).rev().find(|&size| of(size).total() <= free);
        if let Some(size) = smaller {
            return Remedy::MicroBatch(size);
        }
        let one = of(1);
        let rest = one.total() - one.hidden_states;
        match free.checked_sub(rest).filter(|_| one.hidden_states > 0) {
            Some(room) if room > 0 => Remedy::FewerTokens {
                percent: (100.0 * room as f64 / one.hidden_states as f64).floor(),
            },
            _ => Remedy::LargerDevice { needed: rest },
        }
    }
}

/// Bytes of a part on a device that computes in `dtype`: as it is stored, or decoded.
pub(crate) fn brought_bytes(model: &dyn Model, part: &Part, dtype: DType) -> u64 {
    match model.is_in_codes(part.id) {
        true => part.parameters() * dtype.size_in_bytes() as u64,
        false => model.stored_bytes(part.id),
    }
}

/// Activations of `blocks` sequences of `length` tokens in a layer's trunk, `size` bytes each.
fn trunk_activations(spec: &ModelSpec, size: u64, blocks: u64, length: u64) -> u64 {
    let token = trunk_token(spec, size);
    // Scores of a few queries of one sequence, and the values they weigh.
    let scores = heads(spec) * (DEVICE_QUERIES as u64).min(length) * length * 2 * size;
    blocks * length * token + scores
}

/// What a token becomes in a layer's trunk, of numbers of `size` bytes.
fn trunk_token(spec: &ModelSpec, size: u64) -> u64 {
    let hidden = spec.hidden as u64;
    let Widths { attention, inner, experts, latent, .. } = Widths::of(spec);
    // The residual stream, what was normed and what is added; queries, keys and values as they
    // come, turned and by head; an MLP's two halves and their product. In f32 what the router reads
    // and gives.
    size * (6 * hidden + 3 * attention + 4 * inner + latent) + 4 * (hidden + experts)
}

/// What a token becomes in a layer: in its trunk, and in an expert, which all tokens may go through.
pub(crate) fn layer_token(spec: &ModelSpec, size: u64) -> u64 {
    let Widths { expert, .. } = Widths::of(spec);
    trunk_token(spec, size) + size * (2 * spec.hidden as u64 + 4 * expert)
}

/// Activations of the tokens that go through an expert together.
fn expert_activations(spec: &ModelSpec, size: u64) -> u64 {
    let Widths { expert, .. } = Widths::of(spec);
    size * DEVICE_EXPERT_ROWS as u64 * (4 * spec.hidden as u64 + 4 * expert)
}

/// The most heads of any layer that can be run.
fn heads(spec: &ModelSpec) -> u64 {
    spec.layers.iter().map(|layer| layer.attention.heads() as u64).max().unwrap_or(0)
}

/// How much a token becomes in the widest layer, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Widths {
    /// What attention makes of a token's hidden state before its output: query, key and value
    /// together, and what these are made of.
    attention: u64,
    /// Half of what a gated MLP of the trunk makes of it.
    inner: u64,
    /// The same of an expert.
    expert: u64,
    /// What the router makes of it.
    experts: u64,
    /// What leads to experts of a latent width and away from them makes of it.
    latent: u64,
}

impl Widths {
    /// Read off the parts: what a matrix makes of a token is as wide as the matrix has rows.
    fn of(spec: &ModelSpec) -> Self {
        let mut widest = Self::default();
        for layer in 0..spec.layers.len() {
            let Self { attention, inner, expert, experts, latent } = Self::of_layer(spec, layer);
            widest.attention = widest.attention.max(attention);
            widest.inner = widest.inner.max(inner);
            widest.expert = widest.expert.max(expert);
            widest.experts = widest.experts.max(experts);
            widest.latent = widest.latent.max(latent);
        }
        widest
    }

    fn of_layer(spec: &ModelSpec, layer: usize) -> Self {
        let mut widths = Self::default();
        let output = spec.layers[layer].attention.output();
        let parts = spec.layer_parts(layer);
        for LinearShape { id, rows, .. } in parts.iter().filter_map(Part::linear_shape) {
            let rows = rows as u64;
            match id {
                MoeSpec::TO_LATENT | MoeSpec::FROM_LATENT => widths.latent += rows,
                LinearId::Attention(_) | LinearId::Named(_) if Some(id) != output => {
                    widths.attention += rows;
                }
                LinearId::Router => widths.experts = widths.experts.max(rows),
                LinearId::Expert(_, Up) => widths.expert = widths.expert.max(rows),
                LinearId::Residual(Up) | LinearId::Dense(Up) | LinearId::Shared(_, Up) => {
                    widths.inner = widths.inner.max(rows);
                }
                _ => {}
            }
        }
        widths
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moeprune_checkpoint::Checkpoint;
    use moeprune_core::FeedForward;

    use moeprune_core::{AttentionSpec, LayerSpec};

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

    fn check(micro_batch: usize, free: u64, want: Remedy) {
        assert_eq!(need(micro_batch).remedy(free, need), want);
    }

    /// The kinds that the built-in families are made of, counted by hand.
    fn by_hand(spec: &ModelSpec) -> Widths {
        let layer = &spec.layers[0];
        let AttentionSpec::Grouped(attention) = &layer.attention else { panic!("{layer:?}") };
        let moe = spec.layers.iter().find_map(LayerSpec::moe).unwrap();
        let mut widths = Widths {
            attention: (attention.query_width() + 2 * attention.kv_width()) as u64,
            inner: moe.residual.map_or(0, |mlp| mlp.inner as u64),
            expert: moe.expert.inner as u64,
            experts: moe.experts as u64,
            latent: 0,
        };
        for layer in &spec.layers {
            if let FeedForward::Dense(mlp) = &layer.feed_forward {
                widths.inner = widths.inner.max(mlp.inner as u64);
            }
        }
        widths
    }

    #[test]
    fn widths_are_those_of_the_kinds() {
        for model in ["parity/arctic", "parity/arctic_freq2", "parity/mixtral", "nano"] {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
            let checkpoint = Checkpoint::open(&assets.join(model)).unwrap();
            let spec = checkpoint.spec();
            assert_eq!(Widths::of(spec), by_hand(spec), "{model}");
        }
    }

    #[test]
    fn every_kind_of_attention_counts() {
        let check = |model: &str, layer: usize, attention: u64| {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity");
            let checkpoint = Checkpoint::open(&assets.join(model)).unwrap();
            assert_eq!(Widths::of_layer(checkpoint.spec(), layer).attention, attention, "{model}");
        };
        // q_a, q_b, kv_a and kv_b: 24, 96, 24 and 112 rows.
        check("deepseek_v3", 1, 24 + 96 + 24 + 112);
        // Layers without scores have widths too.
        for (model, layer) in [("qwen3_next", 0), ("kimi_linear", 0), ("lfm2_moe", 0)] {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity");
            let checkpoint = Checkpoint::open(&assets.join(model)).unwrap();
            assert!(Widths::of_layer(checkpoint.spec(), layer).attention > 0, "{model}");
        }
    }

    #[test]
    fn remedies_are_what_fits() {
        check(8, need(5).total(), Remedy::MicroBatch(5));
        check(1, need(1).total() - 4 * GB, Remedy::FewerTokens { percent: 50.0 });
        check(8, need(1).total() - 4 * GB, Remedy::FewerTokens { percent: 50.0 });
        check(2, GB, Remedy::LargerDevice { needed: need(1).total() - 8 * GB });
    }

    #[test]
    fn codes_take_the_room_of_what_they_are_decoded_into() {
        let check = |name: &str, dtype: DType, expected: u64| {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name);
            let checkpoint = Checkpoint::open(&assets).unwrap();
            let experts = checkpoint.spec().parts().into_iter();
            let mut experts = experts.filter(|part| part.id.expert().is_some());
            let part = experts.find(|part| part.linear_shape().is_some()).unwrap();
            let got = brought_bytes(&checkpoint, &part, dtype);
            assert_eq!(got, expected * part.parameters(), "{name}");
        };
        check("quantised/fp8_block_qwen3_moe", DType::BF16, 2);
        check("quantised/fp8_block_qwen3_moe", DType::F32, 4);
        check("quantised/mxfp4_gpt_oss", DType::BF16, 2);
        check("nano", DType::BF16, 2);
        check("nano", DType::F32, 2);
    }
}
