//! How much memory a run will need, from shapes alone.

pub(crate) mod activations;
mod cgroups;
mod limits;

use candle_core::Device;
use moeprune_capture::{SumsSize, expert_rows};
use moeprune_core::{
    CorpusTag, LayerNorms, LayerSpec, ModelSpec, MoeInput, Part, TensorId, bytes_in_words,
};

pub use self::limits::{AvailableMemory, MemoryLimit};
use crate::{Error, Model};

/// What a run does, as far as its memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers that count memory handle every kind")]
pub enum RunKind {
    /// Runs the model and sums what it does.
    Observe,
    /// Runs layers as they are and zeroed, by scores of weights.
    Prune,
    /// The same by what all pairs of inputs say of weights (SparseGPT).
    Reconstruct,
}

impl RunKind {
    /// Whether weights are zeroed.
    #[must_use]
    pub fn prunes(self) -> bool {
        self != Self::Observe
    }
}

/// How much text goes through a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct TextSize {
    /// Tokens in all blocks.
    pub tokens: u64,
    /// Tokens of the longest.
    pub block: u64,
}

impl From<&CorpusTag> for TextSize {
    fn from(tag: &CorpusTag) -> Self {
        Self { tokens: tag.tokens(), block: tag.sequence_len }
    }
}

/// The most memory a run over calibration blocks holds at a time, in bytes.
///
/// A layer's experts are held one at a time, so the number of layers and of experts does not
/// matter; the number of tokens does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryNeed {
    /// Hidden states of all blocks in f32, as often as they are held.
    pub hidden_states: u64,
    /// How often that is. Two: a layer's input and its output. Three where experts read what
    /// attention gave: a layer that is being pruned gives them that twice, with its weights as
    /// they were and zeroed.
    pub copies: u64,
    /// The largest layer without its experts, as stored: codes with all that is needed to read them.
    pub trunk: u64,
    /// The same as the CPU runs it: bf16 as it is, all else in f32, and while pruning its zeroed weights beside it.
    pub running_trunk: u64,
    /// The largest expert, as stored.
    pub expert: u64,
    /// The largest expert of those in codes, in f32; 0 if none is.
    pub decoded_expert: u64,
    /// The largest layer's experts, as stored. They are not held together on the host.
    pub layer_experts: u64,
    /// What the tokens of a block become in a trunk, or those that go through an expert together, in f32.
    pub activations: u64,
    /// What is summed: of all layers as they stay, and of one while it runs.
    pub sums: u64,
    /// Products of all pairs of inputs, if those are summed.
    pub hessians: u64,
}

impl MemoryNeed {
    /// Of a run of a text through a model.
    #[must_use]
    pub fn of(model: &dyn Model, text: TextSize, kind: RunKind) -> Self {
        let (spec, pruning) = (model.spec(), kind.prunes());
        let after_attention = spec
            .layers
            .iter()
            .filter_map(|layer| layer.moe())
            .any(|moe| moe.input == MoeInput::AfterAttention);
        // What the MLP beside the experts makes waits for them where their sum is normed.
        let waits = |layer: &LayerSpec| {
            layer.norms != LayerNorms::Before
                && layer.moe().is_some_and(|moe| moe.residual.is_some())
        };
        let waiting = u64::from(spec.layers.iter().any(waits));
        let copies = if pruning && after_attention { 3 } else { 2 } + waiting;
        let stored = |part: &Part| model.stored_bytes(part.id);
        let is_decoded = |part: &Part| part.id.expert().is_some() && model.is_in_codes(part.id);
        let [largest, running, decoded] = Largest::of_each(spec, |part| {
            let (stored, numbers) = (stored(part), 4 * part.parameters());
            let running = host_bytes(model, part) + if pruning { stored } else { 0 };
            [stored, running, if is_decoded(part) { numbers } else { 0 }]
        });
        Self {
            hidden_states: text.tokens
                * 4
                * (copies * spec.hidden as u64).max(latent(model, pruning)),
            copies,
            trunk: largest.trunk,
            running_trunk: running.trunk,
            expert: largest.expert,
            decoded_expert: decoded.expert,
            layer_experts: largest.layer_experts,
            activations: activations(spec, text),
            sums: sums(spec, kind),
            hessians: if kind == RunKind::Reconstruct { hessians(spec) } else { 0 },
        }
    }

    /// All of that: a trunk that runs, eight experts (being read, widened, run, zeroed and written), one
    /// that was decoded, and 300 MB for everything else.
    #[must_use]
    pub fn total(&self) -> u64 {
        let experts = 8 * self.expert + self.decoded_expert;
        let passing = self.running_trunk + experts + self.activations;
        self.hidden_states + passing + self.sums + self.hessians + 300_000_000
    }

    /// What is needed on the host: on a device hidden states are not there.
    fn on_host(&self, on_device: bool) -> u64 {
        if on_device { self.total() - self.hidden_states } else { self.total() }
    }

    /// One line for the user, with advice if there is less.
    pub(crate) fn line(&self, on_device: bool, available: Option<&AvailableMemory>) -> String {
        let needed = self.on_host(on_device);
        let mut line = format!("needs up to {} of memory", bytes_in_words(needed));
        let (enough, short) = match available {
            Some(available) if available.bytes >= needed => (Some(available), None),
            short => (None, short),
        };
        if let Some(AvailableMemory { bytes, limit }) = enough {
            line += &format!(" ({limit} has {} left)", bytes_in_words(*bytes));
        }
        line += &match on_device {
            true => " for weights in passing".into(),
            false => format!(
                ": {} for {} copies of the hidden states, the rest for weights in passing",
                bytes_in_words(self.hidden_states),
                self.copies
            ),
        };
        if let Some(AvailableMemory { bytes, limit }) = short {
            line += &format!(
                "\nwarning: {limit} has {} left; use fewer or shorter calibration blocks",
                bytes_in_words(*bytes)
            );
        }
        line
    }

    /// Refuses what needs more than the user said that a run may take.
    pub(crate) fn check(&self, on_device: bool, asked: Option<u64>) -> Result<(), Error> {
        check_memory(self.on_host(on_device), asked)
    }
}

/// Bytes of a part as the CPU runs it in f32: Linears and heads of bf16 stay that, all else is widened.
pub(crate) fn host_bytes(model: &dyn Model, part: &Part) -> u64 {
    let is_product =
        part.linear_shape().is_some() || matches!(part.id, TensorId::LmHead | TensorId::Embedding);
    let narrow = is_product && model.is_bf16(part.id);
    if narrow { 2 * part.parameters() } else { 4 * part.parameters() }
}

/// What a block becomes in a trunk, or the tokens that go through an expert together.
fn activations(spec: &ModelSpec, text: TextSize) -> u64 {
    if text.tokens == 0 {
        return 0;
    }
    let rows = (expert_rows(&Device::Cpu) as u64).min(text.tokens);
    let trunk = text.block * activations::of_trunk(spec, size_of::<f32>() as u64);
    trunk.max(rows * activations::of_expert(spec, size_of::<f32>() as u64))
}

/// Sums of all layers, and those of the layer that runs, which are copied while they are rounded.
fn sums(spec: &ModelSpec, kind: RunKind) -> u64 {
    let sizes = || (0..spec.layers.len()).map(|layer| SumsSize::of(spec, layer));
    let rounded: u64 = sizes().map(|size| size.rounded).sum();
    let running = sizes().map(|size| size.exact).max().unwrap_or(0);
    match kind {
        RunKind::Observe => rounded + 2 * running,
        RunKind::Prune | RunKind::Reconstruct => rounded + running,
    }
}

/// Products of pairs of inputs of a trunk or an expert, and of one of them its next sum, the damped matrix and its
/// factors.
fn hessians(spec: &ModelSpec) -> u64 {
    let sizes = (0..spec.layers.len()).map(|layer| SumsSize::of(spec, layer));
    let bytes =
        |size: SumsSize| size.trunk_hessians.max(size.expert_hessians) + 4 * size.largest_hessian;
    sizes.map(bytes).max().unwrap_or(0)
}

/// Refuses what needs more memory than the user said that a run may take.
pub(crate) fn check_memory(needed: u64, asked: Option<u64>) -> Result<(), Error> {
    match asked.filter(|&asked| asked < needed) {
        None => Ok(()),
        Some(asked) => Err(Error::Request(format!(
            "the run needs up to {} of memory, and --max-memory allows {}; use fewer or shorter calibration \
             blocks (--samples, --seq-len), or allow more",
            megabytes(needed),
            megabytes(asked)
        ))),
    }
}

/// To more places than [`bytes_in_words`]: two numbers that differ must not look alike.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The largest of what layers are made of, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Largest {
    /// A layer without its experts.
    pub(crate) trunk: u64,
    pub(crate) expert: u64,
    /// All experts of a layer.
    pub(crate) layer_experts: u64,
}

impl Largest {
    /// Of a model of whose parts `bytes` says the size.
    pub(crate) fn of(spec: &ModelSpec, bytes: impl Fn(&Part) -> u64) -> Self {
        let [largest] = Self::of_each(spec, |part| [bytes(part)]);
        largest
    }

    /// The same by several measures, in one pass.
    fn of_each<const N: usize>(spec: &ModelSpec, bytes: impl Fn(&Part) -> [u64; N]) -> [Self; N] {
        let mut largest = [Self::default(); N];
        for layer in 0..spec.layers.len() {
            let count = spec.moe_of(layer).map_or(0, |moe| moe.experts);
            let (mut trunk, mut experts) = ([0; N], vec![[0; N]; count]);
            for part in spec.layer_parts(layer) {
                let sums = part.id.expert().and_then(|expert| experts.get_mut(expert));
                let sums = sums.unwrap_or(&mut trunk);
                sums.iter_mut().zip(bytes(&part)).for_each(|(sum, bytes)| *sum += bytes);
            }
            for (at, largest) in largest.iter_mut().enumerate() {
                let each = || experts.iter().map(|sums| sums[at]);
                largest.trunk = largest.trunk.max(trunk[at]);
                largest.expert = largest.expert.max(each().max().unwrap_or(0));
                largest.layer_experts = largest.layer_experts.max(each().sum());
            }
        }
        largest
    }
}

/// What a token is in numbers where experts have a latent width: the layer's output, and in that width what
/// they read and what they add up to, in each run of the layer.
fn latent(model: &dyn Model, pruning: bool) -> u64 {
    let spec = model.spec();
    let layers = spec.layers.iter().filter_map(|layer| layer.moe()?.latent);
    let runs = if pruning { 2 } else { 1 };
    layers.map(|latent| (spec.hidden + runs * 2 * latent) as u64).max().unwrap_or(0)
}

/// What is left of memory for this process by all that limits it; `None` where the system does not tell.
#[must_use]
pub fn available_memory() -> Option<u64> {
    AvailableMemory::now(None).map(|available| available.bytes)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use moeprune_capture::{LayerObserver, ObserverOptions};
    use moeprune_checkpoint::Checkpoint;
    use moeprune_core::observation::Statistics;

    use super::*;

    /// Parts add up to what the files' headers say.
    #[test]
    fn sizes_of_parts_are_those_of_stored_tensors() {
        for model in ["parity/arctic", "parity/mixtral", "parity/mixtral_sharded", "nano"] {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
            let checkpoint = Checkpoint::open(&assets.join(model)).unwrap();
            let (mut trunks, mut experts) = (BTreeMap::new(), BTreeMap::new());
            for tensor in checkpoint.tensors() {
                let Some(id @ TensorId::Layer(layer, _)) = tensor.part else { continue };
                match id.expert() {
                    None => *trunks.entry(layer).or_insert(0) += tensor.bytes,
                    Some(expert) => *experts.entry((layer, expert)).or_insert(0) += tensor.bytes,
                }
            }
            let text = TextSize { tokens: 1000, block: 100 };
            let need = MemoryNeed::of(&checkpoint, text, RunKind::Prune);
            assert_eq!(Some(need.trunk), trunks.into_values().max(), "{model}");
            assert_eq!(Some(need.expert), experts.values().copied().max(), "{model}");
            let of_layer = |wanted| {
                let bytes = experts.iter().filter(|((layer, _), _)| *layer == wanted);
                bytes.map(|(_, bytes)| bytes).sum::<u64>()
            };
            let largest = (0..checkpoint.spec().layers.len()).map(of_layer).max();
            assert_eq!(Some(need.layer_experts), largest, "{model}");
        }
    }

    /// Bytes of the numbers that a group holds.
    fn held<S: Statistics>(group: &S) -> u64 {
        8 * S::ROWS.iter().map(|row| row.of(group).len() as u64).sum::<u64>()
    }

    #[test]
    fn sizes_of_sums_are_those_of_an_observer() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
        let models =
            ["nano", "parity/mixtral", "parity/deepseek_v3", "parity/gpt_oss", "parity/qwen3_next"];
        for model in models {
            let checkpoint = Checkpoint::open(&assets.join(model)).unwrap();
            let spec = checkpoint.spec();
            for layer in 0..spec.layers.len() {
                let observer = LayerObserver::new(spec, layer, ObserverOptions::default()).unwrap();
                let seen = observer.finish().unwrap();
                let inputs: u64 = seen.inputs.values().map(held).sum();
                let routing = seen.routing.as_ref().map_or(0, held);
                let size = SumsSize::of(spec, layer);
                assert_eq!(size.rounded, inputs + routing, "{model} {layer}");
                assert!(size.exact > 2 * size.rounded, "{model} {layer}");
            }
        }
    }

    #[test]
    fn codes_are_counted_and_one_decoded_expert() {
        let check = |name: &str| {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/quantised");
            let checkpoint = Checkpoint::open(&assets.join(name)).unwrap();
            let spec = checkpoint.spec();
            let moe = spec.layers.iter().find_map(LayerSpec::moe).unwrap();
            let layer = spec.layers.iter().position(|layer| layer.moe().is_some()).unwrap();
            let parts = moe.expert_parts(layer, spec.hidden, 0);
            let weights = parts.iter().filter_map(Part::linear_shape);
            let numbers: u64 = 4 * weights.map(|shape| shape.parameters()).sum::<u64>();
            let text = TextSize { tokens: 1000, block: 100 };
            let need = MemoryNeed::of(&checkpoint, text, RunKind::Prune);
            assert_eq!(need.decoded_expert, numbers, "{name}");
            assert!(need.expert > 0 && need.expert < numbers, "{name}: {}", need.expert);
            let passing = need.running_trunk + 8 * need.expert + numbers + need.activations;
            assert_eq!(need.total(), need.hidden_states + passing + need.sums + 300_000_000);
        };
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/quantised");
        for entry in std::fs::read_dir(assets).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                check(entry.file_name().to_str().unwrap());
            }
        }
    }
}
