//! What a GGUF file says of its model, in the form that a family and a config have.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::roles::{EXPERT_MATRICES, LayerTensors};

/// The sizes of a model, from the shapes of its tensors.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    /// Layers of the decoder, and those behind it that have experts.
    pub(super) with_experts: BTreeSet<usize>,
    /// Layers of the decoder that have none.
    pub(super) without: Vec<usize>,
    pub(super) experts: ExpertShapes,
    pub(super) shared: Option<Mlp>,
    pub(super) residual: Option<Mlp>,
    pub(super) dense: Option<Mlp>,
    /// The norms before attention and before the feed-forward block, if each layer has both.
    pub(super) norms: Option<[&'static str; 2]>,
    pub(super) has_head: bool,
}

/// How experts are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertShapes {
    /// Whether gate and up are one tensor; `None`: there is no gate.
    pub(super) gate_and_up: Option<bool>,
    pub(super) inner: usize,
    /// Width of what they read.
    pub(super) width: usize,
}

/// An MLP that layers have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mlp {
    pub(super) gated: bool,
    pub(super) inner: usize,
}

impl Facts {
    /// `decoder`: number of the decoder's layers.
    pub(super) fn read(
        tensors: &LayerTensors<'_>,
        (embedding, has_head): (&[usize], bool),
        decoder: usize,
    ) -> Result<Self, String> {
        let &[vocab, hidden] = embedding else {
            return Err(format!("`token_embd.weight` is {embedding:?}, expected a matrix"));
        };
        if let Some((layer, rest)) = tensors.without_router() {
            return Err(format!(
                "there is `blk.{layer}.{rest}` and no `blk.{layer}.ffn_gate_inp.weight`"
            ));
        }
        let with_experts = tensors.with_experts();
        let without: Vec<usize> =
            (0..decoder).filter(|layer| !with_experts.contains(layer)).collect();
        let of_decoder = || with_experts.iter().copied().filter(|&layer| layer < decoder);
        let experts = expert_shapes(tensors, of_decoder().next())?;
        let moe = || with_experts.iter().copied();
        let names = |layers: &BTreeSet<usize>, rest: &str| {
            layers.iter().any(|&layer| tensors.shape(rest, layer).is_some())
        };
        let has_norm = names(&with_experts, "ffn_norm_exps.weight");
        let in_both = names(&with_experts, "ffn_up.weight")
            && without.iter().any(|&layer| tensors.shape("ffn_up.weight", layer).is_some());
        let plain = |layers: &mut dyn Iterator<Item = usize>| {
            let layers: Vec<usize> = layers.collect();
            mlp(tensors, "", &layers, hidden).filter(|_| !in_both)
        };
        let residual = plain(&mut moe()).filter(|_| has_norm);
        let dense = plain(&mut without.iter().copied());
        let every: Vec<usize> = (0..decoder).collect();
        let experts_norm =
            if residual.is_some() { "ffn_norm_exps.weight" } else { "ffn_norm.weight" };
        let candidates = [experts_norm, "post_attention_norm.weight"];
        let is_norm =
            |rest: &str| tensors.same_in(rest, every.iter().copied()) == Some(&[hidden][..]);
        let second = candidates.into_iter().find(|rest| is_norm(rest));
        let is_bare = dense.is_none() && !without.is_empty();
        let norms = second.filter(|_| is_norm("attn_norm.weight") && !is_bare);
        let norms = norms.map(|second| ["attn_norm.weight", second]);
        // A residual MLP has a norm before it that is the layer's other one.
        let residual = residual.filter(|_| norms.is_some());
        Ok(Self {
            hidden,
            vocab,
            shared: mlp(tensors, "_shexp", &moe().collect::<Vec<_>>(), hidden),
            residual,
            dense,
            norms,
            with_experts,
            without,
            experts,
            has_head,
        })
    }
}

/// The shapes of the experts of a layer.
fn expert_shapes(tensors: &LayerTensors<'_>, layer: Option<usize>) -> Result<ExpertShapes, String> {
    let Some(layer) = layer else {
        return Err(
            "has no layer with experts (no `ffn_gate_inp.weight`), so there is nothing to \
                    prune"
                .to_owned(),
        );
    };
    let [gate, up, both, down] = EXPERT_MATRICES.map(|rest| tensors.shape(rest, layer));
    let gate_and_up = match (gate, up, both) {
        (Some(_), Some(_), None) => Some(false),
        (None, None, Some(_)) => Some(true),
        (None, Some(_), None) => None,
        _ => {
            return Err(format!(
                "layer {layer} has a router and not `ffn_up_exps.weight` with or without \
                 `ffn_gate_exps.weight`, or `ffn_gate_up_exps.weight` in their place"
            ));
        }
    };
    match down {
        Some(&[_, width, inner]) => Ok(ExpertShapes { gate_and_up, inner, width }),
        Some(other) => Err(format!(
            "`blk.{layer}.ffn_down_exps.weight` is {other:?}, expected experts times a matrix"
        )),
        None => Err(format!("`blk.{layer}.ffn_down_exps.weight` is missing")),
    }
}

/// The MLP of these names that all of these layers have.
fn mlp(tensors: &LayerTensors<'_>, suffix: &str, layers: &[usize], hidden: usize) -> Option<Mlp> {
    let shape = |matrix: &str| {
        tensors.same_in(&format!("ffn_{matrix}{suffix}.weight"), layers.iter().copied())
    };
    let any = |matrix: &str| {
        let rest = format!("ffn_{matrix}{suffix}.weight");
        layers.iter().any(|&layer| tensors.shape(&rest, layer).is_some())
    };
    let has_biases = ["gate", "up", "down"].iter().any(|matrix| {
        let rest = format!("ffn_{matrix}{suffix}.bias");
        layers.iter().any(|&layer| tensors.shape(&rest, layer).is_some())
    });
    let &[inner, _] = shape("up")? else { return None };
    let is = |matrix: &str, expected: [usize; 2]| shape(matrix) == Some(&expected[..]);
    let gated = any("gate");
    let fits = is("up", [inner, hidden])
        && is("down", [hidden, inner])
        && (!gated || is("gate", [inner, hidden]));
    (fits && !has_biases).then_some(Mlp { gated, inner })
}

/// The config that the family of such a file reads. `said`: what the metadata say, under the names that they
/// have there.
pub(super) fn config(facts: &Facts, architecture: &str, said: &Said) -> Json {
    let inner = |mlp: &Option<Mlp>| mlp.map(|mlp| mlp.inner);
    json!({
        "model_type": architecture,
        "hidden": facts.hidden,
        "vocab": facts.vocab,
        "tied": !facts.has_head,
        "layers": said.layers - said.behind,
        "behind": said.behind,
        "with_experts": facts.with_experts.range(..said.layers - said.behind).collect::<Vec<_>>(),
        "inner": facts.experts.inner,
        "width": (facts.experts.width != facts.hidden).then_some(facts.experts.width),
        "shared_inner": inner(&facts.shared),
        "residual": facts.residual.is_some(),
        "residual_inner": inner(&facts.residual),
        "dense_inner": inner(&facts.dense),
        architecture: {
            "context_length": said.context,
            "expert_count": said.experts,
            "expert_used_count": said.used,
            "expert_group_count": said.groups.filter(|&groups| groups > 1),
            "expert_group_used_count": said.groups_used.filter(|&groups| groups > 0),
        },
    })
}

/// What metadata say of a model.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// All layers, those behind the decoder's included.
    pub(super) layers: usize,
    /// Layers behind the decoder's.
    pub(super) behind: usize,
    pub(super) experts: u64,
    /// One number, or one per layer.
    pub(super) used: Json,
    pub(super) context: Option<u64>,
    pub(super) groups: Option<u64>,
    pub(super) groups_used: Option<u64>,
}
