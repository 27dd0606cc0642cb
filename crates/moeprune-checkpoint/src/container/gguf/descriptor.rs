//! A family made for one GGUF file.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{
    facts::{Facts, Mlp},
    roles::{EXPERT_MATRICES, LayerTensors, ROUTER, is_by_expert},
};

/// The names that are known by more than their place: a layer's matrices of attention that other families
/// have too.
const ATTENTION: [(&str, &str); 4] = [
    ("attn_q.weight", "query"),
    ("attn_k.weight", "key"),
    ("attn_v.weight", "value"),
    ("attn_output.weight", "output"),
];

/// The descriptor of a family that has the tensors of this file: experts, routers and MLPs by what they are,
/// everything else as it is stored. Nothing says how such a model is run.
pub(super) fn descriptor(
    facts: &Facts,
    tensors: &LayerTensors<'_>,
    architecture: &str,
) -> Result<String, String> {
    let said = |key: &str| keys(&format!("{architecture}.{key}"));
    let mut family = Table::new();
    family.insert("name".into(), format!("{architecture} (GGUF)").into());
    family.insert("model_types".into(), vec![Value::from(architecture)].into());
    family.insert("prefix".into(), "".into());
    family.insert("model".into(), model(said("context_length")).into());
    let (layers, used) = layers(facts);
    family.insert("layers".into(), layers.into());
    let mut used: BTreeSet<String> = used;
    family.insert("experts".into(), experts(facts, said("expert_count"), &mut used).into());
    if let Some(mlp) = &facts.shared {
        let form =
            table([("inner", keys("shared_inner")), ("tensors", names(mlp, "_shexp", &mut used))]);
        family.insert("shared".into(), vec![Value::from(form)].into());
    }
    if let (Some(mlp), Some(_)) = (&facts.residual, &facts.norms) {
        used.insert("ffn_norm.weight".into());
        let form = table([
            ("when", keys("residual")),
            ("inner", keys("residual_inner")),
            ("experts_input", "layer_input".into()),
            ("norm", "ffn_norm.weight".into()),
            ("tensors", names(mlp, "", &mut used)),
        ]);
        family.insert("residual".into(), form.into());
    }
    if let Some(mlp) = &facts.dense {
        let form = table([("inner", keys("dense_inner")), ("tensors", names(mlp, "", &mut used))]);
        family.insert("dense".into(), form.into());
    }
    let extra = table([("count", keys("behind")), ("policy", "prune".into())]);
    family.insert("extra".into(), extra.into());
    let groups = table([
        ("count", said("expert_group_count")),
        ("selected", said("expert_group_used_count")),
        ("score", "top_two".into()),
    ]);
    let mut router = table([("kind", "opaque".into()), ("top_k", said("expert_used_count"))]);
    router.insert("groups".into(), groups.into());
    let others = Others::of(tensors, &used)?;
    router.insert("tensors".into(), others.router.into());
    family.insert("router".into(), router.into());
    let attention = table([
        ("kind", "opaque".into()),
        ("matrices", others.matrices.into()),
        ("tensors", others.tensors.into()),
    ]);
    family.insert("attention".into(), attention.into());
    toml::to_string(&family).map_err(|e| e.to_string())
}

fn model(context: Value) -> Table {
    let ends = table([
        ("embedding", "token_embd.weight".into()),
        ("final_norm", "output_norm.weight".into()),
        ("head", "output.weight".into()),
    ]);
    table([
        ("hidden", keys("hidden")),
        ("vocab", keys("vocab")),
        ("max_positions", or(context, 4096)),
        ("tied_embeddings", keys("tied")),
        ("tensors", ends.into()),
    ])
}

/// The layers, and the tensors that are named there.
fn layers(facts: &Facts) -> (Table, BTreeSet<String>) {
    let mut layers = table([
        ("count", keys("layers")),
        ("prefix", "blk.{layer}.".into()),
        ("experts", keys("with_experts")),
        ("bare", (facts.dense.is_none() && !facts.without.is_empty()).into()),
        ("other_norms", facts.norms.is_none().into()),
    ]);
    if facts.dense.is_none() && facts.without.is_empty() {
        // No layer is without experts, so nothing needs to say which have some.
        layers.remove("experts");
    }
    let mut used = BTreeSet::new();
    if let Some([input, second]) = facts.norms {
        let norms = table([("input_norm", input.into()), ("post_attention_norm", second.into())]);
        layers.insert("tensors".into(), norms.into());
        used.extend([input, second].map(str::to_owned));
    }
    (layers, used)
}

fn experts(facts: &Facts, count: Value, used: &mut BTreeSet<String>) -> Table {
    let [gate, up, both, down] = EXPERT_MATRICES;
    let mut fused = table([("layout", "out_in".into()), ("down", down.into())]);
    match facts.experts.gate_and_up {
        Some(true) => fused.insert("gate_up".into(), both.into()),
        Some(false) => {
            fused.insert("gate".into(), gate.into());
            fused.insert("up".into(), up.into())
        }
        None => fused.insert("up".into(), up.into()),
    };
    used.extend(EXPERT_MATRICES.map(str::to_owned));
    let mut experts = table([("count", count), ("inner", keys("inner")), ("fused", fused.into())]);
    if facts.experts.width != facts.hidden {
        let (to, from) = ("ffn_latent_down.weight", "ffn_latent_up.weight");
        used.extend([to, from].map(str::to_owned));
        let latent = table([("width", keys("width")), ("to", to.into()), ("from", from.into())]);
        experts.insert("latent".into(), latent.into());
    }
    experts
}

/// The names of an MLP's matrices.
fn names(mlp: &Mlp, suffix: &str, used: &mut BTreeSet<String>) -> Value {
    let mut names = Table::new();
    for matrix in ["gate", "up", "down"] {
        if matrix == "gate" && !mlp.gated {
            continue;
        }
        let name = format!("ffn_{matrix}{suffix}.weight");
        names.insert(matrix.to_owned(), name.clone().into());
        used.insert(name);
    }
    names.into()
}

/// Tensors of layers that are named by nothing else.
#[derive(Default)]
struct Others {
    /// Of routers: with one entry per expert.
    router: Table,
    matrices: Table,
    tensors: Table,
}

impl Others {
    fn of(tensors: &LayerTensors<'_>, used: &BTreeSet<String>) -> Result<Self, String> {
        let mut others = Self::default();
        others.router.insert("weight".into(), ROUTER.into());
        for (&rest, shapes) in &tensors.shapes {
            if used.contains(rest) || rest == ROUTER {
                continue;
            }
            let mut named = table([("name", rest.into()), ("optional", true.into())]);
            let table = if is_by_expert(rest) {
                named.insert("expert_axis".into(), 0.into());
                &mut others.router
            } else if shapes
                .values()
                .all(|shape| matches!(shape, [out, inner] if *out > 1 && *inner > 1))
            {
                &mut others.matrices
            } else {
                &mut others.tensors
            };
            let known = ATTENTION.iter().find(|(name, _)| *name == rest);
            let key = known.map_or_else(|| key_of(rest, table), |(_, key)| (*key).to_owned());
            if table.insert(key.clone(), named.into()).is_some() {
                return Err(format!("`{rest}` has a name that another tensor has too: {key}"));
            }
        }
        Ok(others)
    }
}

/// A key for a tensor that no other in the table has: its name without `.weight`, in the letters of keys, cut
/// where it is too long.
fn key_of(rest: &str, table: &Table) -> String {
    const LONGEST: usize = 24;
    let letter = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '_',
    };
    let key: String = rest.trim_end_matches(".weight").chars().map(letter).take(LONGEST).collect();
    let key = if key == "weight" { "weight_".to_owned() } else { key };
    if !table.contains_key(&key) {
        return key;
    }
    let numbered = (2..).map(|n| format!("{key}_{n}"));
    numbered.into_iter().find(|key| !table.contains_key(key)).unwrap_or(key)
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The form of a config key.
fn keys(key: &str) -> Value {
    table([("keys", vec![Value::from(key)].into())]).into()
}

/// The form of a config key with a default.
fn or(key: Value, default: i64) -> Value {
    match key {
        Value::Table(mut key) => {
            key.insert("default".into(), default.into());
            key.into()
        }
        other => other,
    }
}
