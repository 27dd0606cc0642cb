//! The TOML form of a family.

use std::collections::BTreeMap;

use moeprune_core::{LayerTensor, LinearId, NormWeights, SandwichNorms, TensorId};
use serde::Deserialize;

use super::{
    Slots,
    attention::{AttentionForm, part_name},
    extra::ExtraForm,
    feed_forward::{DenseForm, ExpertsForm, ResidualForm, SharedForm},
    key::{Count, Key, LastLayer, Layers, Strings},
    mixers::MixersForm,
    name::{NameForm, Named},
    router::RouterForm,
    template::Template,
};
use crate::Error;

/// A family as it is written. Unknown keys are errors at every level; what most families call the
/// same way need not be said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Descriptor {
    pub(crate) name: String,
    pub(crate) model_types: Vec<String>,
    /// What stands for `{prefix}` in names.
    #[serde(default = "prefix")]
    pub(crate) prefix: String,
    /// What stands before all other names too; of models whose names are under something that the family's are
    /// not.
    #[serde(skip)]
    pub(crate) around: String,
    /// The object of the config that all keys stand in, but those that begin with `/`; absent or empty:
    /// its top level.
    pub(crate) config: Option<String>,
    #[serde(default)]
    pub(crate) model: ModelForm,
    #[serde(default)]
    pub(crate) layers: LayersForm,
    pub(crate) attention: AttentionForm,
    pub(crate) router: RouterForm,
    pub(crate) experts: ExpertsForm,
    #[serde(default)]
    pub(crate) shared: Vec<SharedForm>,
    pub(crate) residual: Option<ResidualForm>,
    pub(crate) dense: Option<DenseForm>,
    pub(crate) extra: Option<ExtraForm>,
    #[serde(default)]
    pub(crate) require: Vec<Requirement>,
}

/// What of a name is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What follows the prefix.
    Prefixed,
    /// All of it.
    Whole,
}

/// What is said once of the model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelForm {
    pub(crate) hidden: Key<usize>,
    pub(crate) vocab: Key<usize>,
    pub(crate) max_positions: Key<usize>,
    pub(crate) norm_eps: Key<f64>,
    pub(crate) norm_weights: NormWeightsForm,
    pub(crate) tied_embeddings: Key<bool>,
    pub(crate) dtype: Key<String>,
    /// What the outputs of blocks are multiplied by.
    pub(crate) multipliers: MultipliersForm,
    /// Logits become `cap · tanh(logits / cap)`; absent here or in the config: they stay.
    pub(crate) logit_cap: Option<Key<f64>>,
    /// Whether logits have the bias that is named; absent: they have.
    pub(crate) head_bias: Option<Key<bool>>,
    /// Absent: not known, and the model cannot be run.
    pub(crate) activation: Option<Key<String>>,
    pub(crate) tensors: EndNames,
}

/// How the weights of norms are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NormWeightsForm {
    #[default]
    Factor,
    MinusOne,
    WithBias,
}

impl From<NormWeightsForm> for NormWeights {
    fn from(form: NormWeightsForm) -> Self {
        match form {
            NormWeightsForm::Factor => Self::Factor,
            NormWeightsForm::MinusOne => Self::MinusOne,
            NormWeightsForm::WithBias => Self::WithBias,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EndNames {
    pub(crate) embedding: String,
    pub(crate) final_norm: String,
    pub(crate) head: String,
    pub(crate) head_bias: Option<String>,
    pub(crate) final_norm_bias: Option<String>,
}

/// Absent: 1.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MultipliersForm {
    pub(crate) embedding: Option<Key<f64>>,
    /// Whether embeddings are multiplied by the root of the residual stream's width.
    pub(crate) embedding_by_width: bool,
    pub(crate) residual: Option<Key<f64>>,
    /// What logits are divided by.
    pub(crate) logits_divisor: Option<Key<f64>>,
}

/// How many layers there are, and which of them have experts: those that no key rules out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LayersForm {
    pub(crate) count: Key<usize>,
    /// What the names of all tensors of a layer begin with.
    pub(crate) prefix: String,
    /// Layer `l` has experts if `(l + 1) % every == 0`.
    pub(crate) every: Option<Key<usize>>,
    /// Layers before this one have none.
    pub(crate) dense_until: Option<Key<Count>>,
    /// The last layer that has some.
    pub(crate) last: Option<Key<LastLayer>>,
    /// A list of layers that have none.
    pub(crate) dense: Option<Key<Layers>>,
    /// A list of the layers that have experts; where it is there, `every` does not count.
    pub(crate) experts: Option<Key<Layers>>,
    /// A list of one word per layer. Where it is there, no other key is needed.
    pub(crate) types: Option<TypesForm>,
    /// Layers have one block only. No other key says which have experts then.
    pub(crate) mixers: Option<MixersForm>,
    /// Whether layers without experts have no MLP of a known kind: what they store is among the tensors of
    /// their attention and the others.
    pub(crate) bare: bool,
    /// Tensors of a layer that the forward pass does not need and that count as nothing.
    pub(crate) carried: Vec<String>,
    pub(crate) tensors: LayerNames,
    /// Whether the norms of layers are of a kind that is not known, and named among the others; `tensors`
    /// does not count then, and such a model cannot be run.
    pub(crate) other_norms: bool,
    /// The norms after blocks, if there are some.
    pub(crate) sandwich: Option<SandwichForm>,
    /// Other names of tensors, each with the name that stands in the descriptor for the same.
    pub(crate) aliases: BTreeMap<String, String>,
    /// Tensors of a layer that are part of the model and that no other table names.
    pub(crate) other: BTreeMap<String, Named<NameForm>>,
}

/// Words for layers with experts and without.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypesForm {
    pub(crate) list: Key<Strings>,
    pub(crate) experts: String,
    pub(crate) dense: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LayerNames {
    pub(crate) input_norm: String,
    pub(crate) post_attention_norm: String,
    pub(crate) input_norm_bias: Option<String>,
    pub(crate) post_attention_norm_bias: Option<String>,
}

/// Norms after the blocks of a layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandwichForm {
    attention_output: String,
    feed_forward_output: String,
    /// Named where an MLP stands beside the experts.
    residual_output: Option<String>,
    experts_output: Option<String>,
    /// What the layer's output is multiplied by, `[1]`.
    pub(crate) output_scale: Option<String>,
}

impl SandwichForm {
    /// `beside`: whether an MLP stands beside the experts.
    fn check(&self, beside: bool) -> Result<(), Error> {
        let named = [self.residual_output.is_some(), self.experts_output.is_some()];
        if named == [beside; 2] {
            return Ok(());
        }
        let reason = "`residual_output` and `experts_output` in `[layers.sandwich]` go with \
                      `[residual]`";
        Err(Error::Descriptor { reason: reason.to_owned() })
    }

    fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        [
            (SandwichNorms::ATTENTION_OUTPUT, Some(&self.attention_output)),
            (SandwichNorms::FEED_FORWARD_OUTPUT, Some(&self.feed_forward_output)),
            (SandwichNorms::RESIDUAL_OUTPUT, self.residual_output.as_ref()),
            (SandwichNorms::EXPERTS_OUTPUT, self.experts_output.as_ref()),
            (SandwichNorms::OUTPUT_SCALE, self.output_scale.as_ref()),
        ]
        .into_iter()
        .filter_map(|(id, name)| Some((id, name?.as_str())))
    }
}

/// A config key with which only some values are implemented.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    /// Values that are, besides absent and null.
    #[serde(default)]
    pub(crate) allowed: Vec<toml::Value>,
    /// Values that each entry may have, of a list.
    pub(crate) each: Option<Vec<toml::Value>>,
    pub(crate) because: String,
}

fn prefix() -> String {
    "model.".to_owned()
}

impl Default for ModelForm {
    fn default() -> Self {
        Self {
            hidden: Key::any_of(&["hidden_size"]),
            vocab: Key::any_of(&["vocab_size"]),
            max_positions: Key::any_of(&["max_position_embeddings"]),
            norm_eps: Key::any_of(&["rms_norm_eps"]).or(1e-5),
            norm_weights: NormWeightsForm::default(),
            tied_embeddings: Key::any_of(&["tie_word_embeddings"]).or(false),
            dtype: Key::any_of(&["dtype", "torch_dtype"]),
            multipliers: MultipliersForm::default(),
            logit_cap: None,
            head_bias: None,
            activation: None,
            tensors: EndNames::default(),
        }
    }
}

impl Default for EndNames {
    fn default() -> Self {
        Self {
            embedding: "{prefix}embed_tokens.weight".to_owned(),
            final_norm: "{prefix}norm.weight".to_owned(),
            head: "lm_head.weight".to_owned(),
            head_bias: None,
            final_norm_bias: None,
        }
    }
}

impl Default for LayersForm {
    fn default() -> Self {
        Self {
            count: Key::any_of(&["num_hidden_layers"]),
            prefix: "{prefix}layers.{layer}.".to_owned(),
            every: None,
            dense_until: None,
            last: None,
            dense: None,
            experts: None,
            types: None,
            mixers: None,
            bare: false,
            carried: Vec::new(),
            tensors: LayerNames::default(),
            other_norms: false,
            sandwich: None,
            aliases: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

impl Default for LayerNames {
    fn default() -> Self {
        Self {
            input_norm: "input_layernorm.weight".to_owned(),
            post_attention_norm: "post_attention_layernorm.weight".to_owned(),
            input_norm_bias: None,
            post_attention_norm_bias: None,
        }
    }
}

impl Descriptor {
    /// The tensors of a layer and their names after the layer's prefix.
    pub(super) fn layer_slots(&self) -> Result<Slots<'_>, Error> {
        let LayerNames { input_norm, post_attention_norm, .. } = &self.layers.tensors;
        let mut slots: Slots<'_> = Vec::new();
        if !self.layers.other_norms {
            slots.push((LayerTensor::InputNorm, input_norm));
            slots.push((LayerTensor::PostAttentionNorm, post_attention_norm));
        }
        let LayerNames { input_norm_bias, post_attention_norm_bias, .. } = &self.layers.tensors;
        let biases = [
            (LayerTensor::InputNormBias, input_norm_bias),
            (LayerTensor::PostAttentionNormBias, post_attention_norm_bias),
        ];
        slots.extend(biases.into_iter().filter_map(|(id, name)| Some((id, name.as_deref()?))));
        slots.extend(self.layers.sandwich.iter().flat_map(SandwichForm::slots));
        self.attention.slots(&mut slots)?;
        self.router.slots(&mut slots)?;
        self.experts.slots(&mut slots);
        if let Some(opaque) = &self.experts.opaque {
            slots.extend(opaque.slots()?);
        }
        for (at, shared) in self.shared.iter().enumerate() {
            shared.tensors.slots(&mut slots, |p| LinearId::Shared(at, p));
            let gate = shared.gate.as_ref().map(|Named(gate)| &*gate.name);
            slots.extend(gate.map(|name| (LayerTensor::SharedGate(at), name)));
        }
        if let Some(residual) = &self.residual {
            slots.push((LayerTensor::ResidualNorm, &residual.norm));
            residual.tensors.slots(&mut slots, LinearId::Residual);
        }
        if let Some(dense) = &self.dense {
            dense.tensors.slots(&mut slots, LinearId::Dense);
        }
        for (id, name) in self.other()? {
            slots.push((id, &name.name));
        }
        Ok(slots)
    }

    /// The tensors outside of the layers and their names.
    pub(super) fn ends(&self) -> Result<Vec<(TensorId, String)>, Error> {
        let EndNames { embedding, final_norm, head, head_bias, final_norm_bias } =
            &self.model.tensors;
        let named = [
            (TensorId::Embedding, Some(embedding)),
            (TensorId::FinalNorm, Some(final_norm)),
            (TensorId::LmHead, Some(head)),
            (TensorId::LmHeadBias, head_bias.as_ref()),
            (TensorId::FinalNormBias, final_norm_bias.as_ref()),
        ];
        let mut ends: Vec<(TensorId, String)> = Vec::new();
        for (id, name) in named {
            let Some(name) = name.map(|name| self.full_name(name)) else {
                continue;
            };
            Template::parse(&name)?.check(false, false)?;
            if ends.iter().any(|(_, other)| *other == name) {
                let reason = format!("template `{name}` is given twice");
                return Err(Error::Descriptor { reason });
            }
            ends.push((id, name));
        }
        Ok(ends)
    }

    /// A name from its beginning on, with what stands there.
    pub(crate) fn full_name(&self, name: &str) -> String {
        match self.extent_of(name) {
            Extent::Prefixed => name.replace("{prefix}", &self.prefix),
            Extent::Whole => format!("{}{name}", self.around),
        }
    }

    /// Whether a name says itself what it begins with.
    pub(crate) fn extent_of(&self, name: &str) -> Extent {
        if name.contains("{prefix}") { Extent::Prefixed } else { Extent::Whole }
    }

    /// The tensors of `[layers.other]`.
    pub(crate) fn other(&self) -> Result<Vec<(LayerTensor, &NameForm)>, Error> {
        let mut other = Vec::with_capacity(self.layers.other.len());
        for (key, Named(name)) in &self.layers.other {
            other.push((LayerTensor::Named(part_name("other", key)?), name));
        }
        Ok(other)
    }

    /// Checks what types cannot: parts that need names have them.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::Descriptor { reason: reason.to_owned() });
        if self.model_types.is_empty() {
            return bad("`model_types` is empty");
        }
        let LayerNames { input_norm_bias, post_attention_norm_bias, .. } = &self.layers.tensors;
        let biases =
            [input_norm_bias, post_attention_norm_bias, &self.model.tensors.final_norm_bias];
        let wanted = self.model.norm_weights == NormWeightsForm::WithBias;
        if biases.iter().any(|name| name.is_some() != wanted) {
            return bad("`norm_weights = \"with_bias\"` goes with `input_norm_bias` and \
                 `post_attention_norm_bias` in `[layers.tensors]` and `final_norm_bias` in \
                 `[model.tensors]`");
        }
        self.layers.sandwich.iter().try_for_each(|form| form.check(self.residual.is_some()))?;
        if self.experts.count.keys.is_empty() {
            return bad("`experts.count` has no keys; the expert count must stand somewhere");
        }
        if self.experts.count.default.is_some() {
            return bad("`experts.count` cannot have a default: a pruned count is written there");
        }
        let LayersForm { every, dense_until, last, dense, experts, types, mixers, .. } =
            &self.layers;
        let choices = [
            (every.is_some(), "every"),
            (dense_until.is_some(), "dense_until"),
            (last.is_some(), "last"),
            (dense.is_some(), "dense"),
            (experts.is_some(), "experts"),
            (types.is_some(), "types"),
        ];
        if let Some((_, key)) = choices.iter().find(|(given, _)| *given && mixers.is_some()) {
            return bad(&format!("`layers.{key}` and `layers.mixers` exclude each other"));
        }
        let has_form = self.dense.is_some() || self.layers.bare;
        if let Some((_, key)) = choices.iter().find(|(given, _)| *given && !has_form) {
            return bad(&format!(
                "`layers.{key}` makes layers without experts, so `[dense]` is needed, or \
                 `layers.bare`"
            ));
        }
        if let Some(mixers) = mixers {
            mixers.check()?;
            if !self.attention.has_exactly_the_kinds(mixers.kinds()) {
                return bad("`layers.mixers.attention` must name the kinds of `attention.kinds`");
            }
            if mixers.have_dense() && self.dense.is_none() {
                return bad("`layers.mixers.dense` makes dense layers, so `[dense]` is needed");
            }
        }
        self.attention.check(mixers.is_some())?;
        self.extra.iter().try_for_each(|extra| extra.check(&self.attention))?;
        self.router.check()?;
        self.experts.check()?;
        self.shared.iter().try_for_each(|shared| shared.tensors.check("shared"))?;
        self.residual.iter().try_for_each(|residual| residual.tensors.check("residual"))?;
        self.dense.iter().try_for_each(|dense| dense.tensors.check("dense"))
    }
}
