//! How much of a device's memory a run will need, from shapes alone.

use candle_core::DType;
use moeprune_capture::DEVICE_EXPERT_ROWS;
use moeprune_core::{CorpusTag, ModelSpec, Part, bytes_in_words};
use moeprune_model::DEVICE_QUERIES;

use crate::{
    MemoryNeed, Model, Remedy, RunKind,
    memory::{Largest, activations},
};

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
        kind: RunKind,
        dtype: DType,
        micro_batch: usize,
    ) -> Self {
        let size = dtype.size_in_bytes() as u64;
        let host = MemoryNeed::of(model, tag.into(), kind);
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
                .max(DEVICE_EXPERT_ROWS as u64 * activations::of_expert(spec, size)),
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
            bytes_in_words(self.total()),
            bytes_in_words(free),
            bytes_in_words(self.hidden_states),
            bytes_in_words(self.activations),
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
    // Scores of a few queries of one sequence, and the values they weigh.
    let scores = heads(spec) * (DEVICE_QUERIES as u64).min(length) * length * 2 * size;
    blocks * length * activations::of_trunk(spec, size) + scores
}

/// The most heads of any layer that can be run.
fn heads(spec: &ModelSpec) -> u64 {
    spec.layers.iter().map(|layer| layer.attention.heads() as u64).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use moeprune_checkpoint::Checkpoint;

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
