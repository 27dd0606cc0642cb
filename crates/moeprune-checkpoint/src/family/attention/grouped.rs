//! `kind = "grouped"`

use moeprune_core::{
    AttentionBiases, AttentionProjection, GroupedAttention, LayerTensor, LinearId, QueryKeyNorm,
    QueryTemperature, Reach, ValueSource,
};
use serde::Deserialize;

use super::{
    Conditional, Key, Model,
    own_widths::{OwnWidthsForm, Widths},
    window::WindowForm,
};
use crate::{
    Error,
    config::Config,
    family::{key::Switch, rotary::RotaryForm},
};

/// Grouped-query attention.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupedForm {
    #[serde(default = "heads")]
    heads: Key<usize>,
    /// Absent from the config: as many as heads.
    #[serde(default = "kv_heads")]
    kv_heads: Key<usize>,
    /// Absent from the config: hidden / heads.
    #[serde(default = "head_dim")]
    head_dim: Key<usize>,
    /// How queries and keys turn; absent: not at all.
    rotary: Option<RotaryForm>,
    /// Widths that some layers have of their own.
    own: Option<OwnWidthsForm>,
    window: Option<WindowForm>,
    /// Positions of a chunk, within which a query looks; absent: it looks beyond.
    chunk: Option<Key<usize>>,
    /// How queries grow with the position; absent: not at all.
    temperature: Option<TemperatureForm>,
    /// Whether the biases that are named are there; absent: they are.
    biases: Option<Key<bool>>,
    /// What the norms of queries and keys are taken over, if they are named.
    norm: Option<NormForm>,
    /// Whether they are there; absent: they are.
    normed: Option<Key<bool>>,
    /// Whether values are what keys are before their norm; absent: they have a matrix.
    values_are_keys: Option<Key<bool>>,
    /// Whether values go through a norm without a weight.
    #[serde(default)]
    value_norm: bool,
    /// What queries, keys and values are limited to.
    clip: Option<Key<f64>>,
    /// What scores are multiplied by; absent: 1 / sqrt(head_dim).
    scale: Option<Key<f64>>,
    /// Whether the query matrix makes gates of the output too; absent: it does not.
    output_gate: Option<Key<bool>>,
    tensors: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NormForm {
    PerHead,
    PerHeadAfterRotary,
    /// Has no tensors.
    UnweightedAfterRotary,
    FullWidth,
}

/// Queries are multiplied by `1 + scale · ln(1 + floor((position + 1) / floor))`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemperatureForm {
    /// Whether they are.
    when: Key<Switch>,
    scale: Key<f64>,
    floor: Key<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    query: String,
    key: String,
    value: String,
    output: String,
    query_bias: Option<String>,
    key_bias: Option<String>,
    value_bias: Option<String>,
    output_bias: Option<String>,
    query_norm: Option<String>,
    key_norm: Option<String>,
    sinks: Option<String>,
}

pub(super) fn heads() -> Key<usize> {
    Key::any_of(&["num_attention_heads"])
}

fn kv_heads() -> Key<usize> {
    Key::any_of(&["num_key_value_heads"])
}

fn head_dim() -> Key<usize> {
    Key::any_of(&["head_dim"])
}

impl Names {
    fn input_biases(&self) -> [(LayerTensor, &Option<String>); 3] {
        use AttentionProjection::{Key, Query, Value};
        let bias = |p| LayerTensor::Bias(LinearId::Attention(p));
        [
            (bias(Query), &self.query_bias),
            (bias(Key), &self.key_bias),
            (bias(Value), &self.value_bias),
        ]
    }

    fn output_bias(&self) -> [(LayerTensor, &Option<String>); 1] {
        let output = LinearId::Attention(AttentionProjection::Output);
        [(LayerTensor::Bias(output), &self.output_bias)]
    }

    fn norms(&self) -> [(LayerTensor, &Option<String>); 2] {
        [
            (GroupedAttention::QUERY_NORM, &self.query_norm),
            (GroupedAttention::KEY_NORM, &self.key_norm),
        ]
    }
}

impl GroupedForm {
    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        use AttentionProjection::{Key, Output, Query, Value};
        let names = &self.tensors;
        let matrices = [
            (Query, &names.query),
            (Key, &names.key),
            (Value, &names.value),
            (Output, &names.output),
        ];
        let matrices =
            matrices.map(|(p, name)| (LayerTensor::Linear(LinearId::Attention(p)), name.as_str()));
        let vectors = names.input_biases().into_iter().chain(names.output_bias());
        let vectors = vectors.chain(names.norms()).chain([(GroupedAttention::SINKS, &names.sinks)]);
        matrices.into_iter().chain(vectors.filter_map(|(id, name)| Some((id, name.as_deref()?))))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::Descriptor { reason: reason.to_owned() });
        let given = |tensors: &[(LayerTensor, &Option<String>)]| {
            tensors.iter().filter(|(_, name)| name.is_some()).count()
        };
        if !matches!(given(&self.tensors.input_biases()), 0 | 3) {
            return bad(
                "`attention.tensors` must name a bias for query, key and value or for none",
            );
        }
        if self.window.is_some() && self.chunk.is_some() {
            return bad("`attention` has a window or chunks, not both");
        }
        match (given(&self.tensors.norms()), self.norm) {
            (0, None | Some(NormForm::UnweightedAfterRotary)) => Ok(()),
            (2, Some(norm)) if norm != NormForm::UnweightedAfterRotary => Ok(()),
            _ => bad(
                "`attention.norm` is needed where query_norm and key_norm are named, and both are",
            ),
        }
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<Vec<GroupedAttention>, Error> {
        let config = model.config;
        let heads = self.heads.needed(config)?;
        let kv_heads = self.kv_heads.optional(config)?.unwrap_or(heads);
        let common = Widths { kv_heads, head_dim: self.read_head_dim(model, heads)? };
        let of_tensors = |when: &Option<Key<bool>>, tensors: &[(LayerTensor, &Option<String>)]| {
            Conditional { when: when.as_ref(), tensors }.are_there(model)
        };
        let biases = AttentionBiases {
            query_key_value: of_tensors(&self.biases, &self.tensors.input_biases())?,
            output: of_tensors(&self.biases, &self.tensors.output_bias())?,
        };
        let norm = self.read_norm(model)?;
        let temperature = match &self.temperature {
            Some(temperature) => temperature.read(config)?,
            None => None,
        };
        let number = |key: &Option<Key<f64>>| match key {
            Some(key) => key.optional(config),
            None => Ok(None),
        };
        let (clip, scale) = (number(&self.clip)?, number(&self.scale)?);
        let output_gate = self.output_gate.as_ref().map_or(Ok(false), |key| key.needed(config))?;
        let reaches = self.read_reaches(model)?;
        let values_are_keys = self.values_are_keys.as_ref();
        let values = match values_are_keys.map_or(Ok(false), |key| key.needed(config))? {
            true => ValueSource::Keys,
            false => ValueSource::Own,
        };
        let mut attention = Vec::with_capacity(model.layers);
        for (layer, reach) in reaches.into_iter().enumerate() {
            let Widths { kv_heads, head_dim } = self.read_widths(config, layer, heads, common)?;
            let rotary = self.rotary.as_ref();
            let rotary = rotary.map(|form| form.read(config, head_dim, model.max_positions));
            attention.push(GroupedAttention {
                heads,
                kv_heads,
                head_dim,
                scale,
                rotary: rotary.transpose()?,
                reach,
                temperature,
                biases,
                norm,
                values,
                value_norm: self.value_norm,
                clip,
                sinks: self.tensors.sinks.is_some(),
                output_gate,
            });
        }
        Ok(attention)
    }

    fn read_norm(&self, model: Model<'_>) -> Result<Option<QueryKeyNorm>, Error> {
        let is_normed = match (self.norm, &self.normed) {
            (Some(NormForm::UnweightedAfterRotary), Some(key)) => key.needed(model.config)?,
            (Some(NormForm::UnweightedAfterRotary), None) => true,
            (_, normed) => {
                let norms = &self.tensors.norms();
                Conditional { when: normed.as_ref(), tensors: norms }.are_there(model)?
            }
        };
        Ok(self.norm.filter(|_| is_normed).map(|norm| match norm {
            NormForm::PerHead => QueryKeyNorm::PerHead,
            NormForm::PerHeadAfterRotary => QueryKeyNorm::PerHeadAfterRotary,
            NormForm::UnweightedAfterRotary => QueryKeyNorm::UnweightedAfterRotary,
            NormForm::FullWidth => QueryKeyNorm::FullWidth,
        }))
    }

    /// How far back each decoder layer looks.
    fn read_reaches(&self, model: Model<'_>) -> Result<Vec<Reach>, Error> {
        match (&self.window, &self.chunk) {
            (Some(window), _) => window.read(model),
            (None, Some(chunk)) => {
                Ok(vec![Reach::Chunk(chunk.needed(model.config)?); model.layers])
            }
            (None, None) => Ok(vec![Reach::Everything; model.layers]),
        }
    }

    /// The widths of a layer with so many query heads; `common`: those of layers that have none of their
    /// own.
    fn read_widths(
        &self,
        config: &Config,
        layer: usize,
        heads: usize,
        common: Widths,
    ) -> Result<Widths, Error> {
        let widths = match &self.own {
            Some(own) => own.of_layer(config, layer, common)?,
            None => common,
        };
        if heads.is_multiple_of(widths.kv_heads) {
            return Ok(widths);
        }
        Err(config.refuse(format!(
            "`{}` is {heads}, not a multiple of `{}`, {}",
            self.heads.shown(),
            self.kv_heads.shown(),
            widths.kv_heads
        )))
    }

    fn read_head_dim(&self, model: Model<'_>, heads: usize) -> Result<usize, Error> {
        let hidden = model.hidden;
        match self.head_dim.optional(model.config)? {
            Some(head_dim) => Ok(head_dim),
            None if hidden.is_multiple_of(heads) => Ok(hidden / heads),
            None => Err(model.config.refuse(format!(
                "the width {hidden} does not divide into {heads} heads, and no `{}` says how \
                 wide a head is",
                self.head_dim.shown()
            ))),
        }
    }
}

impl TemperatureForm {
    fn read(&self, config: &Config) -> Result<Option<QueryTemperature>, Error> {
        if !self.when.needed(config)?.0 {
            return Ok(None);
        }
        let (scale, floor) = (self.scale.needed(config)?, self.floor.needed(config)?);
        Ok(Some(QueryTemperature { scale, floor }))
    }
}
