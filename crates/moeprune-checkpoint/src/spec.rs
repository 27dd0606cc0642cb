//! From a family, a config and the tensors' names to the facts about a model.

mod extra;
mod requirements;

use moeprune_core::{
    FeedForward, LayerNorms, LayerSpec, MlpSpec, ModelSpec, MoeInput, MoeSpec, Multipliers,
    OpaqueTensor, RouterSpec, SandwichNorms, SharedSpec, TensorId,
};

use self::requirements::{check_positions, read_activation};
pub(crate) use self::{
    extra::{AnnouncedExtra, announced_extra},
    requirements::{check_not_quantised, check_requirements},
};
use crate::{
    Error, Family,
    config::{Config, Found, shown},
    family::{
        Count, Descriptor, Key, Layers, LayersForm, Mixer, Model, MultipliersForm, PerLayer,
        SandwichForm, Strings, TypesForm, missing, opaque_tensor,
    },
    named_tensors::NamedTensors,
    number::wholes,
};

/// Reads everything the config says about the model.
pub(crate) fn read_spec(
    family: &Family,
    config: &Config,
    named: &NamedTensors,
) -> Result<ModelSpec, Error> {
    let form = family.descriptor();
    if let Some(opaque) = &form.experts.opaque {
        opaque.check(config, named)?;
    }
    if !named.quantised {
        check_not_quantised(family, config)?;
    }
    let model = &form.model;
    let hidden = model.hidden.needed(config)?;
    let max_positions = model.max_positions.needed(config)?;
    let mixers = form.layers.mixers.as_ref().map(|mixers| mixers.read(config)).transpose()?;
    let layers = count_layers(&form.layers, config)?;
    let read = Model {
        config,
        named,
        layers,
        hidden,
        max_positions,
        chosen: None,
        mixers: mixers.as_deref(),
    };
    let layers = read_layers(form, read)?;
    check_positions(family.reads(), config, &layers)?;
    let known = |layer: &LayerSpec| layer.attention.rotary()?.scaling.longest();
    let longest = layers.iter().filter_map(known).min();
    let biased = model.head_bias.as_ref().map_or(Ok(true), |key| key.needed(config))?;
    let extra = extra::read(form, read, &layers)?;
    Ok(ModelSpec {
        family: family.name().to_owned(),
        hidden,
        vocab: model.vocab.needed(config)?,
        max_positions: longest.map_or(max_positions, |longest| longest.min(max_positions)),
        norm_eps: model.norm_eps.needed(config)?,
        norm_weights: model.norm_weights.into(),
        // A head that is stored is the head, even if the config calls the embeddings tied.
        tied_embeddings: model.tied_embeddings.needed(config)?
            && !named.shapes.contains_key(&TensorId::LmHead),
        head_bias: biased && model.tensors.head_bias.is_some(),
        multipliers: read_multipliers(&model.multipliers, config, hidden)?,
        logit_cap: match &model.logit_cap {
            Some(key) => key.optional(config)?,
            None => None,
        },
        layers,
        extra,
        undecoded: None,
        undecoded_experts: false,
    })
}

/// How many layers the decoder has. Where the config says what each is, it need not say so again.
fn count_layers(form: &LayersForm, config: &Config) -> Result<usize, Error> {
    let Some(mixers) = &form.mixers else { return form.count.needed(config) };
    let listed = mixers.read(config)?.len();
    match form.count.optional(config)? {
        Some(count) if count != listed => {
            let key = form.count.shown();
            Err(config
                .refuse(format!("`{key}` is {count}, but mixers of {listed} layers are listed")))
        }
        _ => Ok(listed),
    }
}

fn read_multipliers(
    form: &MultipliersForm,
    config: &Config,
    hidden: usize,
) -> Result<Multipliers, Error> {
    let number = |key: &Option<Key<f64>>| match key {
        Some(key) => key.needed(config),
        None => Ok(1.0),
    };
    let by_width = if form.embedding_by_width { (hidden as f64).sqrt() } else { 1.0 };
    Ok(Multipliers {
        embedding: number(&form.embedding)? * by_width,
        residual: number(&form.residual)?,
        logits: 1.0 / number(&form.logits_divisor)?,
    })
}

/// The storage type the config declares, as it spells it.
pub(crate) fn declared_dtype(family: &Family, config: &Config) -> Result<Option<String>, Error> {
    family.descriptor().model.dtype.optional(config)
}

/// The expert count as it stands in the config.
pub(crate) fn expert_count<'a>(family: &'a Family, config: &'a Config) -> Result<Found<'a>, Error> {
    count_of(family.descriptor(), config)
}

fn count_of<'a>(form: &'a Descriptor, config: &'a Config) -> Result<Found<'a>, Error> {
    let keys = &form.experts.count.keys;
    config.find(keys)?.ok_or_else(|| missing(config, keys))
}

/// Which norms stand around the blocks of each layer.
fn norms_of(form: &LayersForm) -> LayerNorms {
    let around = |sandwich: &SandwichForm| {
        LayerNorms::Around(SandwichNorms { output_scale: sandwich.output_scale.is_some() })
    };
    match &form.sandwich {
        _ if form.other_norms => LayerNorms::Named,
        Some(sandwich) => around(sandwich),
        None => LayerNorms::Before,
    }
}

/// The tensors of a layer that no other table names.
fn other_of(
    form: &Descriptor,
    named: &NamedTensors,
    layer: usize,
) -> Result<Vec<OpaqueTensor>, Error> {
    let mut other = Vec::new();
    for (id, name) in form.other()? {
        other.extend(opaque_tensor(id, name, named, layer)?);
    }
    Ok(other)
}

fn read_layers(form: &Descriptor, model: Model<'_>) -> Result<Vec<LayerSpec>, Error> {
    let Model { config, named, layers, .. } = model;
    if layers != named.layers {
        return Err(config.refuse(format!(
            "`{}` is {layers}, but the tensors are those of {} decoder layers{}",
            form.layers.count.shown(),
            named.layers,
            match &named.stranger {
                Some((stored, expected)) =>
                    format!("; there is `{stored}` where `{expected}` was expected"),
                None => String::new(),
            }
        )));
    }
    let has_experts = match model.mixers {
        Some(mixers) => mixers.iter().map(|mixer| *mixer == Mixer::Experts).collect(),
        None => with_experts(&form.layers, config, layers)?,
    };
    let moe_layers = has_experts.iter().filter(|has| **has).count();
    if moe_layers == 0 {
        return Err(config.refuse(no_experts(form, layers)));
    }
    let counts = read_expert_counts(form, config, layers, moe_layers)?;
    let has_dense = match model.mixers {
        Some(mixers) => mixers.contains(&Mixer::Dense),
        None => moe_layers < layers && !form.layers.bare,
    };
    let blocks = Blocks::read(form, config, has_dense)?;
    blocks
        .top_k
        .check(layers)
        .map_err(|reason| config.refuse(format!("`{}` {reason}", form.router.top_k().shown())))?;
    let attention = form.attention.read(model)?;
    let mut specs = Vec::with_capacity(layers);
    let mut rank = 0;
    for ((layer, has_experts), attention) in has_experts.into_iter().enumerate().zip(attention) {
        let feed_forward = if has_experts {
            let experts = counts.of(layer, rank);
            rank += 1;
            blocks.check_choice(form, config, layer, experts)?;
            FeedForward::Moe(blocks.moe(form, named, layer, experts)?)
        } else if form.layers.bare {
            FeedForward::None
        } else if model.mixers.is_none_or(|mixers| mixers.get(layer) == Some(&Mixer::Dense)) {
            FeedForward::Dense(blocks.dense_of(config, layer)?)
        } else {
            FeedForward::None
        };
        let (norms, other) = (norms_of(&form.layers), other_of(form, named, layer)?);
        specs.push(LayerSpec { attention, feed_forward, norms, other });
    }
    Ok(specs)
}

fn no_experts(form: &Descriptor, layers: usize) -> String {
    let keys = form.layers.mixers.as_ref().map(|mixers| mixers.shown("` or `"));
    let by = keys.map_or(String::new(), |keys| format!(" by `{keys}`"));
    format!("none of the {layers} layers has experts{by}, so there is nothing to prune")
}

/// Which layers have experts.
fn with_experts(form: &LayersForm, config: &Config, layers: usize) -> Result<Vec<bool>, Error> {
    let by_type = match &form.types {
        Some(types) => by_type(types, config, layers)?,
        None => None,
    };
    let by_keys = by_keys(form, config, layers)?;
    let Some(by_type) = by_type else { return Ok(by_keys) };
    if let Some(key) = &form.dense_until
        && let Some(found) = key.found(config)?
        && by_type != by_keys
    {
        return Err(config.refuse(format!(
            "`{found}` and the list of layer types name different layers without experts"
        )));
    }
    Ok(by_type)
}

/// As a list of words says, if there is one.
fn by_type(form: &TypesForm, config: &Config, layers: usize) -> Result<Option<Vec<bool>>, Error> {
    let Some(Strings(types)) = form.list.optional(config)? else { return Ok(None) };
    let keys = form.list.shown();
    if types.len() != layers {
        let got = types.len();
        let reason = format!("`{keys}` has length {got}, expected {layers}, one entry per layer");
        return Err(config.refuse(reason));
    }
    let has = |kind: &String| match kind {
        kind if *kind == form.experts => Ok(true),
        kind if *kind == form.dense => Ok(false),
        kind => {
            let (experts, dense) = (&form.experts, &form.dense);
            let expected = format!("expected `{experts}` or `{dense}`");
            Err(config.refuse(format!("`{keys}` has `{}`, {expected}", shown(kind))))
        }
    };
    types.iter().map(has).collect::<Result<_, _>>().map(Some)
}

/// As all other keys say together.
fn by_keys(form: &LayersForm, config: &Config, layers: usize) -> Result<Vec<bool>, Error> {
    let every = form.every.as_ref().map_or(Ok(1), |key| key.needed(config))?;
    let until = form.dense_until.as_ref().map_or(Ok(Count(0)), |key| key.needed(config))?.0;
    let last = match &form.last {
        Some(key) => key.optional(config)?,
        None => None,
    };
    let list = |key: &Option<Key<Layers>>| match key {
        None => Ok(None),
        Some(key) => key.optional(config).map(|layers| layers.map(|Layers(layers)| layers)),
    };
    let (dense, experts) = (list(&form.dense)?, list(&form.experts)?);
    let listed = |l: usize| match &experts {
        Some(experts) => experts.contains(&l),
        None => (l + 1).is_multiple_of(every),
    };
    let has = |l: usize| {
        listed(l)
            && l >= until
            && last.is_none_or(|last| !last.is_before(l))
            && dense.as_ref().is_none_or(|dense| !dense.contains(&l))
    };
    Ok((0..layers).map(has).collect())
}

/// What a layer's feed-forward block may be, but for the number of experts.
struct Blocks {
    top_k: PerLayer,
    router: RouterSpec,
    expert: MlpSpec,
    shared: Vec<Option<SharedSpec>>,
    residual: Option<MlpSpec>,
    dense: Option<MlpSpec>,
    input: MoeInput,
    latent: Option<usize>,
}

impl Blocks {
    fn read(form: &Descriptor, config: &Config, dense: bool) -> Result<Self, Error> {
        let activation = read_activation(form, config)?;
        let top_k = form.router.top_k().needed(config)?;
        let residual = match &form.residual {
            Some(residual) if residual.when.needed(config)? => Some(residual),
            _ => None,
        };
        let input = residual.map_or(form.experts.input, |residual| residual.experts_input).into();
        let residual = residual
            .map(|form| form.tensors.spec(config, form.inner.needed(config)?, activation))
            .transpose()?;
        let dense = match &form.dense {
            Some(form) if dense => {
                Some(form.tensors.spec(config, form.inner.needed(config)?, activation)?)
            }
            _ => None,
        };
        Ok(Self {
            router: form.router.read(config, top_k.largest() > 1)?,
            top_k,
            expert: form.experts.spec(config, activation)?,
            shared: (form.shared.iter())
                .map(|shared| shared.read(config, activation))
                .collect::<Result<_, _>>()?,
            residual,
            dense,
            input,
            latent: form.experts.latent(config)?,
        })
    }

    /// The MLP of a layer without experts.
    fn dense_of(&self, config: &Config, layer: usize) -> Result<MlpSpec, Error> {
        self.dense.ok_or_else(|| {
            config.refuse(format!("layer {layer} would have no experts, which is not known"))
        })
    }

    /// Checks that a token finds as many experts as it is routed to.
    fn check_choice(
        &self,
        form: &Descriptor,
        config: &Config,
        layer: usize,
        experts: usize,
    ) -> Result<(), Error> {
        let top_k = self.top_k.of(layer);
        if top_k > experts {
            return Err(config.refuse(format!(
                "`{}` is {top_k}, but layer {layer} has {experts} experts",
                form.router.top_k().shown()
            )));
        }
        let Some(groups) = self.router.groups() else { return Ok(()) };
        let checked = groups.check_count(experts, top_k);
        checked.map_err(|reason| config.refuse(format!("layer {layer}: {reason}")))
    }

    fn moe(
        &self,
        form: &Descriptor,
        named: &NamedTensors,
        layer: usize,
        experts: usize,
    ) -> Result<MoeSpec, Error> {
        let shared = form.shared.iter().zip(&self.shared).enumerate();
        let shared = shared.filter_map(|(at, (form, read))| {
            read.map(|read| form.of_layer(read, at, named, layer))
        });
        let mut opaque = match &form.experts.opaque {
            Some(opaque) => opaque.of_layer(named, layer)?,
            None => Vec::new(),
        };
        opaque.extend(named.other_codes(layer, &opaque));
        Ok(MoeSpec {
            experts,
            top_k: self.top_k.of(layer),
            router: form.router.of_layer(&self.router, named, layer)?,
            expert: form.experts.of_layer(self.expert, named, layer),
            opaque,
            shared: shared.collect(),
            residual: self.residual,
            input: self.input,
            latent: self.latent,
        })
    }
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
    form: &Descriptor,
    config: &Config,
    layers: usize,
    moe_layers: usize,
) -> Result<ExpertCounts, Error> {
    let found = count_of(form, config)?;
    if !found.text.starts_with('[') {
        return Ok(ExpertCounts::Same(found.read(config)?));
    }
    let wrong = |expected: &str| {
        Err(config.refuse(format!("`{}`: {expected}, got {}", found.key, found.shown())))
    };
    let Some(counts) = wholes(found.text) else {
        return wrong("expected a whole number, or a list of them");
    };
    if counts.len() == layers {
        Ok(ExpertCounts::Layers(counts))
    } else if counts.len() == moe_layers {
        Ok(ExpertCounts::MoeLayers(counts))
    } else {
        wrong(&format!("expected one count per layer, {layers} in all"))
    }
}
