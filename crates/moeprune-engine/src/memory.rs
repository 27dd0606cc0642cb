//! How much memory a run will need, from shapes alone.

use moeprune_core::{LayerNorms, LayerSpec, MoeInput, TensorId};

use crate::Model;

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
    /// The largest layer without its experts, as stored.
    pub trunk: u64,
    /// The same as the CPU runs it: in f32, and while pruning its zeroed weights beside it.
    pub running_trunk: u64,
    /// The largest expert, as stored.
    pub expert: u64,
    /// The largest layer's experts, as stored. They are not held together on the host.
    pub layer_experts: u64,
}

impl MemoryNeed {
    /// Of a run of `tokens` calibration tokens through a model, observing or pruning it.
    #[must_use]
    pub fn of(model: &dyn Model, tokens: u64, pruning: bool) -> Self {
        let spec = model.spec();
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
        let mut trunks = vec![0; spec.layers.len()];
        let mut running = vec![0; spec.layers.len()];
        let mut experts = std::collections::BTreeMap::new();
        let mut layers = vec![0; spec.layers.len()];
        for part in spec.parts() {
            let TensorId::Layer(layer, tensor) = part.id else { continue };
            let bytes = model.stored_bytes(part.id);
            match tensor.expert() {
                Some(expert) => {
                    *experts.entry((layer, expert)).or_insert(0) += bytes;
                    layers[layer] += bytes;
                }
                None => {
                    trunks[layer] += bytes;
                    running[layer] += 4 * part.parameters() + if pruning { bytes } else { 0 };
                }
            }
        }
        Self {
            hidden_states: tokens * 4 * (copies * spec.hidden as u64).max(latent(model, pruning)),
            copies,
            trunk: trunks.into_iter().max().unwrap_or(0),
            running_trunk: running.into_iter().max().unwrap_or(0),
            expert: experts.into_values().max().unwrap_or(0),
            layer_experts: layers.into_iter().max().unwrap_or(0),
        }
    }

    /// Hidden states, a trunk that runs, eight experts (being read, widened, run, zeroed and written), and
    /// 300 MB for everything else.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.hidden_states + self.running_trunk + 8 * self.expert + 300_000_000
    }

    /// One line for the user, with advice if the machine has less.
    /// On a device hidden states are not on the host.
    pub(crate) fn line(&self, on_device: bool) -> String {
        let needed = if on_device { self.total() - self.hidden_states } else { self.total() };
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let mut line = format!("needs up to {} of memory", gigabytes(needed));
        line += &match on_device {
            true => " for weights in passing".into(),
            false => format!(
                ": {} for {} copies of the hidden states, the rest for weights in passing",
                gigabytes(self.hidden_states),
                self.copies
            ),
        };
        if let Some(available) = available_memory().filter(|&bytes| bytes < needed) {
            line += &format!(
                "\nwarning: this machine has {} free; use fewer or shorter calibration blocks",
                gigabytes(available)
            );
        }
        line
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

/// What the system would give a new process; `None` where it does not tell.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use moeprune_checkpoint::Checkpoint;

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
            let need = MemoryNeed::of(&checkpoint, 1000, true);
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
}
