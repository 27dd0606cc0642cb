//! `kind = "latent"`

use moeprune_core::{LatentAttention, LayerTensor};
use serde::Deserialize;

use super::{Conditional, Key, Model, grouped::heads, indexer::IndexerForm};
use crate::{Error, family::rotary::RotaryForm};

/// Multi-head latent attention.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatentForm {
    #[serde(default = "heads")]
    heads: Key<usize>,
    /// Absent from the config: queries have no latent.
    #[serde(default = "query_rank")]
    query_rank: Key<usize>,
    #[serde(default = "kv_rank")]
    kv_rank: Key<usize>,
    #[serde(default = "nope_dim")]
    nope_dim: Key<usize>,
    #[serde(default = "rope_dim")]
    rope_dim: Key<usize>,
    #[serde(default = "value_dim")]
    value_dim: Key<usize>,
    /// Absent: nothing turns.
    rotary: Option<RotaryForm>,
    /// Whether the biases that are named are there; absent: they are.
    biases: Option<Key<bool>>,
    /// Absent: queries see all keys at or before them.
    indexer: Option<IndexerForm>,
    tensors: Names,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    /// Without a latent of the queries.
    query: Option<String>,
    /// With one.
    q_a: Option<String>,
    query_norm: Option<String>,
    q_b: Option<String>,
    kv_a: String,
    kv_norm: String,
    kv_b: String,
    output: String,
    q_a_bias: Option<String>,
    kv_a_bias: Option<String>,
    output_bias: Option<String>,
}

fn query_rank() -> Key<usize> {
    Key::any_of(&["q_lora_rank"])
}

fn kv_rank() -> Key<usize> {
    Key::any_of(&["kv_lora_rank"])
}

fn nope_dim() -> Key<usize> {
    Key::any_of(&["qk_nope_head_dim"])
}

fn rope_dim() -> Key<usize> {
    Key::any_of(&["qk_rope_head_dim"])
}

fn value_dim() -> Key<usize> {
    Key::any_of(&["v_head_dim"])
}

impl LatentForm {
    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        let names = &self.tensors;
        let linear = LayerTensor::Linear;
        let always = [
            (linear(LatentAttention::KV_A), &*names.kv_a),
            (LatentAttention::KV_NORM, &names.kv_norm),
            (linear(LatentAttention::KV_B), &names.kv_b),
            (linear(LatentAttention::OUTPUT), &names.output),
        ];
        let some = [
            (linear(LatentAttention::QUERY), &names.query),
            (linear(LatentAttention::Q_A), &names.q_a),
            (LatentAttention::QUERY_NORM, &names.query_norm),
            (linear(LatentAttention::Q_B), &names.q_b),
            (LayerTensor::Bias(LatentAttention::Q_A), &names.q_a_bias),
            (LayerTensor::Bias(LatentAttention::KV_A), &names.kv_a_bias),
            (LayerTensor::Bias(LatentAttention::OUTPUT), &names.output_bias),
        ];
        let some = some.into_iter().filter_map(|(id, name)| Some((id, name.as_deref()?)));
        let indexer = self.indexer.iter().flat_map(IndexerForm::slots);
        always.into_iter().chain(some).chain(indexer)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::Descriptor { reason: reason.to_owned() });
        let Names { query, q_a, query_norm, q_b, q_a_bias, kv_a_bias, output_bias, .. } =
            &self.tensors;
        let latent = [q_a, query_norm, q_b].map(Option::is_some);
        match latent {
            [true, true, true] => {}
            [false, false, false] if query.is_some() => {}
            _ => {
                return bad(
                    "`attention.tensors` must name q_a, query_norm and q_b, or query, or all",
                );
            }
        }
        match (q_a_bias.is_some() || q_a.is_none(), kv_a_bias.is_some(), output_bias.is_some()) {
            (true, true, true) => Ok(()),
            (_, false, false) if q_a_bias.is_none() => Ok(()),
            _ => bad("`attention.tensors` must name a bias for q_a, kv_a and output or for none"),
        }
    }

    /// The attention of each decoder layer, as if all were of this kind.
    pub(super) fn read(&self, model: Model<'_>) -> Result<Vec<LatentAttention>, Error> {
        let latent = self.read_same(model)?;
        let Some(form) = &self.indexer else { return Ok(vec![latent; model.layers]) };
        if latent.query_rank.is_none() {
            let reason = format!(
                "lacks `{}`: the indexer of keys reads the queries' latent",
                self.query_rank.shown()
            );
            return Err(model.config.refuse(reason));
        }
        let indexers = form.read(model, latent.rotary.as_ref())?;
        let with = |indexer| LatentAttention { indexer: Some(indexer), ..latent.clone() };
        Ok(indexers.into_iter().map(with).collect())
    }

    /// What is the same in all layers.
    fn read_same(&self, model: Model<'_>) -> Result<LatentAttention, Error> {
        let config = model.config;
        let query_rank = self.query_rank.optional(config)?;
        let rope_dim = self.rope_dim.needed(config)?;
        let rotary = match &self.rotary {
            Some(form) => Some(form.read(config, rope_dim, model.max_positions)?),
            None => None,
        };
        let of_queries = (LayerTensor::Bias(LatentAttention::Q_A), &self.tensors.q_a_bias);
        let biases = [
            (LayerTensor::Bias(LatentAttention::KV_A), &self.tensors.kv_a_bias),
            (LayerTensor::Bias(LatentAttention::OUTPUT), &self.tensors.output_bias),
            of_queries,
        ];
        let biases = if query_rank.is_some() { &biases[..] } else { &biases[..2] };
        Ok(LatentAttention {
            heads: self.heads.needed(config)?,
            query_rank,
            kv_rank: self.kv_rank.needed(config)?,
            nope_dim: self.nope_dim.needed(config)?,
            rope_dim,
            value_dim: self.value_dim.needed(config)?,
            rotary,
            biases: Conditional { when: self.biases.as_ref(), tensors: biases }.are_there(model)?,
            indexer: None,
        })
    }
}
