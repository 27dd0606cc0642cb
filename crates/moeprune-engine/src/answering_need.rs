//! What memory it takes to ask a model questions: whole, or with its experts read when they are needed.

use moeprune_core::{AttentionSpec, ModelSpec, Part, TensorId, bytes_in_words};
use moeprune_model::Compute;

use crate::{
    AvailableMemory, Error, MemoryLimit, Model,
    device_memory::{FIXED, brought_bytes},
    memory::{Largest, activations, host_bytes, megabytes},
};

/// For everything on the host that is not counted: the tokenizer, the questions, logits.
const REST: u64 = 300_000_000;

/// Experts in passing, as they are stored and as they run: read, handed over and in use.
const PASSING: u64 = 3;

/// Tokens of a sequence for which there is room in any case, unless the model has fewer positions.
const SEQUENCE: u64 = 2048;

/// Tokens that go through the layers together at most.
const PASS: u64 = 4096;

/// Tokens over which a state of constant size is counted, as if it grew with them.
const STATE_TOKENS: u64 = 256;

/// What a model takes in memory where it answers questions, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnsweringNeed {
    /// Embedding, head, and the layers without their experts, as they run.
    pub trunks: u64,
    /// All experts, as they run.
    pub experts: u64,
    /// The same as they are stored.
    pub stored_experts: u64,
    /// What is read at a time beside what runs: a few experts, or the head.
    pub passing: u64,
    /// A token that goes through the layers.
    pub token: u64,
    /// A position of a sequence, for which all layers keep keys and values.
    pub position: u64,
    /// Positions of a sequence for which there is room in any case.
    pub sequence: u64,
    /// For everything else.
    pub rest: u64,
}

/// Where the experts of a model are while it answers questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a caller does the one or the other")]
pub enum ExpertPlace {
    /// In memory, as the rest of the model.
    Memory,
    /// Where they are stored: they are read when they are needed.
    Storage(StreamingRoom),
}

/// How memory is divided where experts are read when they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamingRoom {
    /// Bytes of experts that are kept.
    pub experts: u64,
    /// Tokens that go through the layers together at most.
    pub pass_tokens: usize,
    /// Positions of all sequences together whose keys and values are kept at most.
    pub positions: usize,
}

impl AnsweringNeed {
    /// Of a model, or of one of shape `spec` that is made of it, that runs on `compute`.
    #[must_use]
    pub fn of(model: &dyn Model, spec: &ModelSpec, compute: &Compute) -> Self {
        let size = compute.dtype().size_in_bytes() as u64;
        let stored = |part: &Part| model.stored_bytes(part.id);
        let runs = |part: &Part| match compute.holds_stored() {
            true => brought_bytes(model, part, compute.dtype()),
            // The embedding is read row by row.
            false if part.id == TensorId::Embedding => stored(part),
            false => host_bytes(model, part),
        };
        let head = if spec.tied_embeddings { TensorId::Embedding } else { TensorId::LmHead };
        let head = spec.part(head).map_or((0, 0), |part| match compute.holds_stored() {
            true => (stored(&part), size * part.parameters()),
            false => (stored(&part), host_bytes(model, &part)),
        });
        let mut need = Self {
            trunks: if spec.tied_embeddings { head.1 } else { 0 },
            experts: 0,
            stored_experts: 0,
            passing: 0,
            token: activations::of_layer(spec, size),
            position: position_bytes(spec, size).max(1),
            sequence: SEQUENCE.min(spec.max_positions as u64).max(1),
            rest: if compute.holds_stored() && !compute.device().is_cpu() { FIXED } else { REST },
        };
        for part in spec.parts() {
            match part.id.expert() {
                None => need.trunks += runs(&part),
                Some(_) => {
                    need.experts += runs(&part);
                    need.stored_experts += stored(&part);
                }
            }
        }
        let largest = Largest::of(spec, |part| stored(part) + runs(part)).expert;
        need.passing = (PASSING * largest).max(head.0);
        need
    }

    /// With the whole model in memory, and one sequence.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.trunks + self.experts + self.rest + self.sequence * (self.token + self.position)
    }

    /// With experts read when they are needed, none of them kept, and one sequence.
    #[must_use]
    pub fn streamed(&self) -> u64 {
        self.trunks + self.passing + self.rest + self.sequence * (self.token + self.position)
    }

    /// Where experts are: in memory if the whole model fits into what is available, unless they are to be
    /// `streamed` in any case. Where nothing limits memory, it fits.
    ///
    /// # Errors
    /// If the model does not fit even without its experts.
    pub fn place(
        &self,
        available: Option<&AvailableMemory>,
        streamed: bool,
    ) -> Result<ExpertPlace, Error> {
        let Some(available) = available else {
            let nothing =
                StreamingRoom { experts: 0, pass_tokens: PASS as usize, positions: usize::MAX };
            return Ok(if streamed { ExpertPlace::Storage(nothing) } else { ExpertPlace::Memory });
        };
        if !streamed && self.whole() <= available.bytes {
            return Ok(ExpertPlace::Memory);
        }
        // Others may want some of what the machine has left.
        let bytes = match available.limit {
            MemoryLimit::Asked => available.bytes,
            _ => available.bytes / 10 * 9,
        };
        match bytes.checked_sub(self.streamed()) {
            Some(left) => Ok(ExpertPlace::Storage(self.divide(left))),
            None => Err(Error::Request(format!(
                "the model needs {} of memory to be asked questions whole and at least {} if its experts are read when \
                 they are needed, and {} has {} left; allow more, or ask a smaller model",
                megabytes(self.whole()),
                megabytes(self.streamed()),
                available.limit,
                megabytes(available.bytes)
            ))),
        }
    }

    /// Divides what is left beside one sequence: an eighth for tokens, three for keys and values, the rest for
    /// experts.
    fn divide(&self, left: u64) -> StreamingRoom {
        let tokens = (self.sequence + left / 8 / self.token).min(PASS.max(self.sequence));
        let left = left - (tokens - self.sequence) * self.token;
        let positions = left / 8 * 3 / self.position;
        StreamingRoom {
            experts: left - positions * self.position,
            pass_tokens: usize::try_from(tokens).unwrap_or(usize::MAX),
            positions: usize::try_from(self.sequence + positions).unwrap_or(usize::MAX),
        }
    }

    /// One line for the user: how much memory it takes at most, but for keys and values of further sequences.
    #[must_use]
    pub fn memory_line(&self, place: &ExpertPlace) -> String {
        let (bytes, experts) = match place {
            ExpertPlace::Memory => (self.whole(), "with all experts in it"),
            ExpertPlace::Storage(room) => (self.divided(room), "with experts in passing"),
        };
        format!("needs up to {} of memory, {experts}", bytes_in_words(bytes))
    }

    /// With memory divided like that.
    fn divided(&self, room: &StreamingRoom) -> u64 {
        let tokens = (room.pass_tokens as u64).saturating_mul(self.token);
        let positions = self.sequence * self.position;
        let each = self.sequence * (self.token + self.position);
        let experts = room.experts.min(self.experts);
        (self.streamed() - each + experts).saturating_add(tokens).saturating_add(positions)
    }

    /// One line for the user about a model whose experts are read when they are needed.
    #[must_use]
    pub fn line(&self, room: &StreamingRoom) -> String {
        let kept = room.experts.min(self.experts);
        format!(
            "experts are read when they are needed: {} of the model stay in memory, and of {} for experts those that \
             are used most, up to {}",
            bytes_in_words(self.trunks),
            bytes_in_words(self.experts),
            bytes_in_words(kept)
        )
    }
}

/// What all layers keep of a position, twice: what grows is copied to where there is more room.
fn position_bytes(spec: &ModelSpec, size: u64) -> u64 {
    let numbers = |attention: &AttentionSpec| match attention {
        AttentionSpec::Grouped(shape) => 2 * shape.kv_heads * shape.head_dim,
        AttentionSpec::Latent(shape) => {
            let indexer = shape.indexer.as_ref().map_or(0, |indexer| indexer.dim);
            shape.heads * (shape.head_dim() + shape.value_dim) + indexer
        }
        other => state(other, spec.hidden).div_ceil(STATE_TOKENS as usize),
    };
    let numbers = spec.layers.iter().map(|layer| numbers(&layer.attention) as u64);
    2 * size * numbers.sum::<u64>()
}

/// Numbers that a layer keeps of a sequence of any length.
fn state(attention: &AttentionSpec, hidden: usize) -> usize {
    match attention {
        AttentionSpec::GatedDelta(net) => {
            let channels = 2 * net.key_heads * net.key_dim + net.value_heads * net.value_dim;
            net.value_heads * net.key_dim * net.value_dim + net.kernel * channels
        }
        AttentionSpec::KimiDelta(net) => net.heads * net.head_dim * (net.head_dim + 3 * net.kernel),
        AttentionSpec::ShortConvolution(convolution) => convolution.kernel * hidden,
        AttentionSpec::Mamba2(mamba) => {
            let inner = mamba.heads * mamba.head_dim;
            inner * mamba.state + mamba.kernel * (inner + 2 * mamba.groups * mamba.state)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moeprune_checkpoint::Checkpoint;

    use super::*;

    fn checkpoint(name: &str) -> Checkpoint {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
        Checkpoint::open(&assets.join(name)).unwrap()
    }

    fn asked(bytes: u64) -> AvailableMemory {
        AvailableMemory { bytes, limit: MemoryLimit::Asked }
    }

    /// All that is counted by hand: bf16 as it is, norms in f32.
    #[test]
    fn sizes_of_the_embedded_model() {
        let model = checkpoint("nano");
        let need = AnsweringNeed::of(&model, model.spec(), &Compute::cpu());
        let expert = 3 * 128 * 96;
        assert_eq!(need.experts, 2 * 4 * 32 * expert);
        assert_eq!(need.stored_experts, 2 * 4 * 32 * expert);
        assert_eq!(need.passing, (3 * 4 * expert).max(2 * 864 * 128));
        // Two heads of 32 in four layers, keys and values, twice.
        assert_eq!(need.position, 2 * 4 * 4 * 2 * 2 * 32);
        assert_eq!(need.sequence, 512);
        let trunk = 128 * (128 + 64 + 64 + 128) + 3 * 128 * 128 + 32 * 128;
        let norms = 128 + 4 * 3 * 128;
        assert_eq!(need.trunks, 2 * (2 * 864 * 128 + 4 * trunk) + 4 * norms);
    }

    #[test]
    fn every_kind_keeps_something() {
        for name in ["deepseek_v32", "qwen3_next", "kimi_linear", "lfm2_moe", "nemotron_h"] {
            let model = checkpoint(&format!("parity/{name}"));
            let need = AnsweringNeed::of(&model, model.spec(), &Compute::cpu());
            assert!(need.position > 1 && need.token > 0, "{name}: {need:?}");
        }
    }

    #[test]
    fn experts_are_streamed_where_the_whole_does_not_fit() {
        let need = AnsweringNeed {
            trunks: 1_000_000,
            experts: 50_000_000,
            stored_experts: 25_000_000,
            passing: 100_000,
            token: 1_000,
            position: 500,
            sequence: 100,
            rest: 10_000,
        };
        let place = |bytes, streamed| need.place(Some(&asked(bytes)), streamed).unwrap();
        assert_eq!(place(need.whole(), false), ExpertPlace::Memory);
        assert!(matches!(place(need.whole(), true), ExpertPlace::Storage(_)));
        for bytes in [need.streamed(), need.streamed() + 12_345, need.whole() - 1] {
            let ExpertPlace::Storage(room) = place(bytes, false) else { panic!("{bytes}") };
            let taken = need.trunks
                + need.passing
                + need.rest
                + room.experts
                + room.pass_tokens as u64 * need.token
                + room.positions as u64 * need.position;
            assert!(
                taken <= bytes && taken + need.token + need.position > bytes - bytes / 8,
                "{taken} of {bytes}"
            );
            assert!(room.pass_tokens >= 100 && room.positions >= 100, "{room:?}");
        }
        let refused = need.place(Some(&asked(need.streamed() - 1)), false).unwrap_err();
        assert!(refused.to_string().contains("--max-memory has"), "{refused}");
        assert_eq!(need.place(None, false).unwrap(), ExpertPlace::Memory);
        let machine = AvailableMemory { bytes: need.streamed() + 1, limit: MemoryLimit::Machine };
        assert!(need.place(Some(&machine), false).is_err(), "some is left to others");
    }
}
