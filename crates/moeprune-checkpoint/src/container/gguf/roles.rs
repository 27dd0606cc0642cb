//! What a tensor of a layer is, by its name in llama.cpp.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::ContainedTensor;

/// What the names of all tensors of a layer begin with.
pub(super) const LAYER: &str = "blk.";

/// The router's weight.
pub(super) const ROUTER: &str = "ffn_gate_inp.weight";

/// Matrices of all experts of a layer in one tensor.
pub(super) const EXPERT_MATRICES: [&str; 4] = [
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_gate_up_exps.weight",
    "ffn_down_exps.weight",
];

/// Tensors that have the word for experts in their names and no axis of them.
const NOT_BY_EXPERT: [&str; 1] = ["ffn_norm_exps.weight"];

/// The tensors of the layers of a file, by what their names have after the layer's number.
#[derive(Debug, Default)]
pub(super) struct LayerTensors<'a> {
    /// By the rest of the name, then by layer: shapes, outermost first.
    pub(super) shapes: BTreeMap<&'a str, BTreeMap<usize, &'a [usize]>>,
}

impl<'a> LayerTensors<'a> {
    pub(super) fn of(tensors: &'a [ContainedTensor]) -> Self {
        let mut found = Self::default();
        for tensor in tensors {
            let Some((layer, rest)) = layer_and_rest(&tensor.name) else { continue };
            found.shapes.entry(rest).or_default().insert(layer, &tensor.shape);
        }
        found
    }

    /// How many layers there are, by the highest number.
    pub(super) fn count(&self) -> usize {
        let last = self.shapes.values().filter_map(|layers| layers.keys().next_back());
        last.max().map_or(0, |last| last.saturating_add(1))
    }

    /// A tensor of experts in a layer that has no router, with its layer.
    pub(super) fn without_router(&self) -> Option<(usize, &'a str)> {
        let routed = self.with_experts();
        let by_expert = self
            .shapes
            .iter()
            .filter(|(rest, _)| EXPERT_MATRICES.contains(rest) || is_by_expert(rest));
        let mut all =
            by_expert.flat_map(|(rest, layers)| layers.keys().map(|&layer| (layer, *rest)));
        all.find(|(layer, _)| !routed.contains(layer))
    }

    /// The shape of a tensor of a layer.
    pub(super) fn shape(&self, rest: &str, layer: usize) -> Option<&'a [usize]> {
        self.shapes.get(rest)?.get(&layer).copied()
    }

    /// The layers that have a router, ascending.
    pub(super) fn with_experts(&self) -> BTreeSet<usize> {
        self.shapes.get(ROUTER).map(|layers| layers.keys().copied().collect()).unwrap_or_default()
    }

    /// The shape that a tensor has in all of these layers; `None` if one lacks it or two differ.
    pub(super) fn same_in(
        &self,
        rest: &str,
        layers: impl IntoIterator<Item = usize>,
    ) -> Option<&'a [usize]> {
        let mut shapes = layers.into_iter().map(|layer| self.shape(rest, layer));
        let first = shapes.next()??;
        shapes.all(|shape| shape == Some(first)).then_some(first)
    }
}

/// The layer of a tensor, and its name after the layer's number.
fn layer_and_rest(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.strip_prefix(LAYER)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Whether a tensor that is no matrix of experts has one entry per expert along its outermost axis: biases
/// and scales of experts and routers, and what is added to scores.
pub(super) fn is_by_expert(rest: &str) -> bool {
    let (stem, end) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let of_matrix =
        EXPERT_MATRICES.iter().any(|matrix| matrix.strip_suffix(".weight") == Some(stem));
    match (stem, end) {
        ("exp_probs_b", _) | ("ffn_gate_inp", "bias") => true,
        (_, "bias" | "scale" | "input_scale") => of_matrix,
        _ => rest == "exp_probs_b",
    }
}

/// Whether a name speaks of experts in a way that is not known, so that it cannot be told whether the tensor
/// shrinks with them.
pub(super) fn is_unknown_of_experts(rest: &str) -> bool {
    let known = rest == ROUTER
        || EXPERT_MATRICES.contains(&rest)
        || NOT_BY_EXPERT.contains(&rest)
        || is_by_expert(rest);
    let single = |stem: &str| {
        // One tensor per expert, as files of the beginning of 2024 have them.
        rest.strip_prefix(stem).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let singles = ["ffn_gate.", "ffn_up.", "ffn_down."].into_iter().any(single);
    let speaks = ["exps", "exp_", "expert", "tid2eid"].iter().any(|word| rest.contains(word));
    !known && (speaks || singles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_an_axis_of_experts() {
        let check = |rest: &str, expected: bool| assert_eq!(is_by_expert(rest), expected, "{rest}");
        check("exp_probs_b.bias", true);
        check("exp_probs_b", true);
        check("ffn_gate_inp.bias", true);
        check("ffn_gate_inp.weight", false);
        check("ffn_gate_exps.bias", true);
        check("ffn_down_exps.scale", true);
        check("ffn_gate_up_exps.input_scale", true);
        check("ffn_gate_exps.weight", false);
        check("ffn_gate_shexp.bias", false);
        check("ffn_norm_exps.weight", false);
        check("attn_q.bias", false);
    }

    #[test]
    fn what_is_not_known_of_experts() {
        let check = |rest: &str, expected: bool| {
            assert_eq!(is_unknown_of_experts(rest), expected, "{rest}")
        };
        check("ffn_up_exps.weight", false);
        check("ffn_norm_exps.weight", false);
        check("exp_probs_b.bias", false);
        check("ffn_up_shexp.weight", false);
        check("ffn_gate_inp_shexp.weight", false);
        check("ffn_gate_exps.zeros", true);
        check("ffn_gate_chexps.weight", true);
        check("ffn_gate_tid2eid.weight", true);
        check("ffn_gate.7.weight", true);
        check("ffn_gate.weight", false);
        check("attn_norm.weight", false);
    }
}
