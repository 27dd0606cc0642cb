//! What tokens become on their way through a layer, from shapes alone.

use moeprune_core::{LinearId, LinearShape, MlpProjection::Up, ModelSpec, MoeSpec, Part};

/// Bytes that a token becomes in the widest trunk, of numbers of `size` bytes: the residual stream, what was normed
/// and what is added; queries, keys and values as they come, turned and by head; an MLP's two halves and their
/// product. In f32 what the router reads and gives.
pub(crate) fn of_trunk(spec: &ModelSpec, size: u64) -> u64 {
    let hidden = spec.hidden as u64;
    let Widths { attention, inner, experts, latent, .. } = Widths::of(spec);
    size * (6 * hidden + 3 * attention + 4 * inner + latent) + 4 * (hidden + experts)
}

/// Bytes that a token becomes in a layer: in its trunk, and in an expert, which all tokens may go through.
pub(crate) fn of_layer(spec: &ModelSpec, size: u64) -> u64 {
    let Widths { expert, .. } = Widths::of(spec);
    of_trunk(spec, size) + size * (2 * spec.hidden as u64 + 4 * expert)
}

/// Bytes that a token becomes in the widest expert, of numbers of `size` bytes.
pub(crate) fn of_expert(spec: &ModelSpec, size: u64) -> u64 {
    let Widths { expert, .. } = Widths::of(spec);
    size * (4 * spec.hidden as u64 + 4 * expert)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moeprune_checkpoint::Checkpoint;
    use moeprune_core::{AttentionSpec, FeedForward, LayerSpec};

    use super::*;

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
}
