//! From a family and a config to the facts about a model.

use moeprune_core::{
    Activation, AttentionSpec, FeedForward, GroupedAttention, LayerSpec, MlpSpec, ModelSpec,
    MoeSpec, RouterSpec,
};

use crate::{
    Error, Family,
    config::{Config, ConfigValue, Found, same_json, shown},
    family::{Key, Renormalize, Requirement, RoutingKind},
};

/// What the tensors' names say, against which the config is held before anything is sized by it.
#[derive(Debug, Clone)]
pub(crate) struct NamedLayers {
    /// Highest layer named, plus one.
    pub(crate) layers: usize,
}

/// Reads everything the config says about the model.
pub(crate) fn read_spec(
    family: &Family,
    config: &Config,
    named: &NamedLayers,
) -> Result<ModelSpec, Error> {
    let form = family.descriptor();
    let keys = &form.config;
    for requirement in &form.require {
        check_requirement(config, requirement)?;
    }
    let hidden = needed(config, &keys.hidden)?;
    let heads = needed(config, &keys.heads)?;
    let kv_heads = optional(config, &keys.kv_heads)?.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(config.refuse(format!(
            "`{}` is {heads}, not a multiple of `{}`, {kv_heads}",
            keys.heads.keys.join("` or `"),
            keys.kv_heads.keys.join("` or `")
        )));
    }
    let head_dim = match optional(config, &keys.head_dim)? {
        Some(head_dim) => head_dim,
        None if hidden % heads == 0 => hidden / heads,
        None => {
            return Err(config.refuse(format!(
                "the width {hidden} does not divide into {heads} heads, and no `{}` says how wide \
                 a head is",
                keys.head_dim.keys.join("` or `")
            )));
        }
    };
    let attention = AttentionSpec::Grouped(GroupedAttention {
        heads,
        kv_heads,
        head_dim,
        rope_theta: needed(config, &keys.rope_theta)?,
        sliding_window: optional(config, &keys.sliding_window)?,
    });
    let layers = read_layers(family, config, named, &attention)?;
    Ok(ModelSpec {
        family: family.name().to_owned(),
        hidden,
        vocab: needed(config, &keys.vocab)?,
        max_positions: needed(config, &keys.max_positions)?,
        norm_eps: needed(config, &keys.norm_eps)?,
        tied_embeddings: needed(config, &keys.tied_embeddings)?,
        layers,
        extra: None,
    })
}

/// The storage type the config declares, as it spells it.
pub(crate) fn declared_dtype(family: &Family, config: &Config) -> Result<Option<String>, Error> {
    optional(config, &family.descriptor().config.dtype)
}

/// The expert count as it stands in the config.
pub(crate) fn expert_count<'a>(family: &'a Family, config: &'a Config) -> Result<Found<'a>, Error> {
    let keys = &family.descriptor().config.experts.keys;
    config.find(keys)?.ok_or_else(|| missing(config, keys))
}

fn read_layers(
    family: &Family,
    config: &Config,
    named: &NamedLayers,
    attention: &AttentionSpec,
) -> Result<Vec<LayerSpec>, Error> {
    let form = family.descriptor();
    let layers = needed(config, &form.config.layers)?;
    if layers != named.layers {
        return Err(config.refuse(format!(
            "`{}` is {layers}, but the tensors are those of {} decoder layers",
            form.config.layers.keys.join("` or `"),
            named.layers
        )));
    }
    let every = match &form.moe.every {
        Some(key) => needed(config, key)?,
        None => 1,
    };
    let has_experts = |layer: usize| (layer + 1).is_multiple_of(every);
    let moe_layers = (0..layers).filter(|&l| has_experts(l)).count();
    let counts = read_expert_counts(family, config, layers, moe_layers)?;
    let top_k = needed(config, &form.config.top_k)?;
    let residual = match &form.residual {
        Some(residual) if needed(config, &residual.when)? => Some(residual),
        _ => None,
    };
    let activation = read_activation(config, &form.config.activation)?;
    let mlp = |inner| MlpSpec { activation, ..MlpSpec::gated(inner) };
    let residual_inner = residual.map(|r| needed(config, &r.inner)).transpose()?;
    let input = residual.map_or(form.moe.input, |r| r.moe_input).into();
    let expert_inner = needed(config, &form.config.expert_inner)?;
    let router = read_routing(family, config, top_k)?;
    let dense_inner = match &form.dense {
        Some(dense) if moe_layers < layers => Some(needed(config, &dense.inner)?),
        _ => None,
    };
    let mut specs = Vec::with_capacity(layers);
    let mut rank = 0;
    for layer in 0..layers {
        let feed_forward = if has_experts(layer) {
            let experts = counts.of(layer, rank);
            rank += 1;
            if top_k > experts {
                return Err(config.refuse(format!(
                    "`{}` is {top_k}, but layer {layer} has {experts} experts",
                    form.config.top_k.keys.join("` or `")
                )));
            }
            FeedForward::Moe(MoeSpec {
                experts,
                top_k,
                router: router.clone(),
                expert: mlp(expert_inner),
                shared: Vec::new(),
                residual: residual_inner.map(mlp),
                input,
            })
        } else {
            let inner = dense_inner.ok_or_else(|| {
                config.refuse(format!("layer {layer} would have no experts, which is not known"))
            })?;
            FeedForward::Dense(mlp(inner))
        };
        let other = Vec::new();
        specs.push(LayerSpec { attention: attention.clone(), feed_forward, other });
    }
    Ok(specs)
}

enum ExpertCounts {
    Same(usize),
    /// One for each decoder layer; of layers without experts any number.
    Layers(Vec<u64>),
    /// One for each layer with experts.
    MoeLayers(Vec<u64>),
}

impl ExpertCounts {
    fn of(&self, layer: usize, rank: usize) -> usize {
        let at = |counts: &[u64], i: usize| {
            counts.get(i).map_or(0, |&n| usize::try_from(n).unwrap_or(usize::MAX))
        };
        match self {
            Self::Same(experts) => *experts,
            Self::Layers(counts) => at(counts, layer),
            Self::MoeLayers(counts) => at(counts, rank),
        }
    }
}

fn read_expert_counts(
    family: &Family,
    config: &Config,
    layers: usize,
    moe_layers: usize,
) -> Result<ExpertCounts, Error> {
    let found = expert_count(family, config)?;
    if !found.text.starts_with('[') {
        return Ok(ExpertCounts::Same(found.read(config)?));
    }
    let wrong = |expected: &str| {
        Err(config.refuse(format!("`{}`: {expected}, got {}", found.key, shown(found.text))))
    };
    let Ok(counts) = serde_json::from_str::<Vec<u64>>(found.text) else {
        return wrong("expected a whole number, or a list of them");
    };
    if counts.len() == layers {
        Ok(ExpertCounts::Layers(counts))
    } else if counts.len() == moe_layers {
        Ok(ExpertCounts::MoeLayers(counts))
    } else {
        wrong(&format!("expected one count for each of the {layers} layers"))
    }
}

fn read_routing(family: &Family, config: &Config, top_k: usize) -> Result<RouterSpec, Error> {
    let form = &family.descriptor().routing;
    let renormalize = match &form.renormalize {
        Renormalize::Always => true,
        Renormalize::Never => false,
        Renormalize::WhenSeveral => top_k > 1,
        Renormalize::Config(key) => needed(config, key)?,
    };
    match form.kind {
        RoutingKind::SoftmaxTopK => Ok(RouterSpec::softmax(renormalize)),
    }
}

fn read_activation(config: &Config, key: &Key<String>) -> Result<Activation, Error> {
    let name = needed(config, key)?;
    match name.as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(config.refuse(format!(
            "`{}` is `{}`; only silu is implemented",
            key.keys.join("` or `"),
            shown(other)
        ))),
    }
}

fn check_requirement(config: &Config, requirement: &Requirement) -> Result<(), Error> {
    let Some(found) = config.find(std::slice::from_ref(&requirement.key))? else { return Ok(()) };
    let allowed =
        |a: &toml::Value| serde_json::to_string(a).is_ok_and(|a| same_json(&a, found.text));
    if requirement.allowed.iter().any(allowed) {
        return Ok(());
    }
    Err(config.refuse(format!("`{}` is {}: {}", found.key, shown(found.text), requirement.because)))
}

fn needed<T: ConfigValue + Clone>(config: &Config, key: &Key<T>) -> Result<T, Error> {
    optional(config, key)?.ok_or_else(|| missing(config, &key.keys))
}

fn optional<T: ConfigValue + Clone>(config: &Config, key: &Key<T>) -> Result<Option<T>, Error> {
    match config.find(&key.keys)? {
        Some(found) => found.read(config).map(Some),
        None => Ok(key.default.clone()),
    }
}

fn missing(config: &Config, keys: &[String]) -> Error {
    config.refuse(format!("lacks `{}`", keys.join("` or `")))
}
