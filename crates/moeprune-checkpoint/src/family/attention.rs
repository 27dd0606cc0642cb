//! `[attention]`

use std::collections::BTreeMap;

use moeprune_core::{
    AttentionProjection, AttentionSpec, GroupedAttention, LayerTensor, LinearId, OpaqueTensor,
    PartName, TensorId,
};
use serde::Deserialize;

use super::{
    Slots,
    key::Key,
    name::{NameForm, Named},
};
use crate::{Error, config::Config, named_tensors::NamedTensors};

/// The kind decides which keys there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum AttentionForm {
    Grouped(Box<GroupedForm>),
    Opaque(OpaqueForm),
}

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
    rope_theta: Key<f64>,
    #[serde(default = "sliding_window")]
    sliding_window: Key<usize>,
    tensors: GroupedNames,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupedNames {
    query: String,
    key: String,
    value: String,
    output: String,
}

/// Attention that is carried over.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpaqueForm {
    /// Matrices `[out, in]`, which count as decoder Linears.
    #[serde(default)]
    matrices: BTreeMap<String, Named<NameForm>>,
    /// Norms, biases and all other tensors.
    #[serde(default)]
    tensors: BTreeMap<String, Named<NameForm>>,
}

fn heads() -> Key<usize> {
    Key::any_of(&["num_attention_heads"])
}

fn kv_heads() -> Key<usize> {
    Key::any_of(&["num_key_value_heads"])
}

fn head_dim() -> Key<usize> {
    Key::any_of(&["head_dim"])
}

fn sliding_window() -> Key<usize> {
    Key::any_of(&["sliding_window"])
}

impl AttentionForm {
    /// The names of its tensors.
    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) -> Result<(), Error> {
        use AttentionProjection::{Key, Output, Query, Value};
        match self {
            Self::Grouped(form) => {
                let tensors = &form.tensors;
                for (projection, name) in [
                    (Query, &tensors.query),
                    (Key, &tensors.key),
                    (Value, &tensors.value),
                    (Output, &tensors.output),
                ] {
                    slots.push((LayerTensor::Linear(LinearId::Attention(projection)), name));
                }
            }
            Self::Opaque(form) => {
                for (id, name) in form.tensors()? {
                    slots.push((id, &name.name));
                }
            }
        }
        Ok(())
    }

    /// What the config says about the attention of all layers.
    pub(crate) fn read(&self, config: &Config, hidden: usize) -> Result<AttentionSpec, Error> {
        match self {
            Self::Grouped(form) => form.read(config, hidden).map(AttentionSpec::Grouped),
            Self::Opaque(_) => Ok(AttentionSpec::Opaque(Vec::new())),
        }
    }

    /// The attention of one layer, with the tensors that are stored.
    pub(crate) fn of_layer(
        &self,
        read: &AttentionSpec,
        named: &NamedTensors,
        layer: usize,
    ) -> Result<AttentionSpec, Error> {
        let Self::Opaque(form) = self else { return Ok(read.clone()) };
        let mut tensors = Vec::new();
        for (id, name) in form.tensors()? {
            tensors.extend(opaque_tensor(id, name, named, layer)?);
        }
        Ok(AttentionSpec::Opaque(tensors))
    }
}

impl OpaqueForm {
    fn tensors(&self) -> Result<Vec<(LayerTensor, &NameForm)>, Error> {
        let mut tensors = Vec::with_capacity(self.matrices.len() + self.tensors.len());
        for (key, Named(name)) in &self.matrices {
            let linear = format!("attention.{key}").parse().map_err(|_| bad_key(key))?;
            tensors.push((LayerTensor::Linear(linear), name));
        }
        for (key, Named(name)) in &self.tensors {
            tensors.push((LayerTensor::Named(part_name("attention", key)?), name));
        }
        Ok(tensors)
    }
}

impl GroupedForm {
    fn read(&self, config: &Config, hidden: usize) -> Result<GroupedAttention, Error> {
        let heads = self.heads.needed(config)?;
        let kv_heads = self.kv_heads.optional(config)?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            return Err(config.refuse(format!(
                "`{}` is {heads}, not a multiple of `{}`, {kv_heads}",
                self.heads.shown(),
                self.kv_heads.shown()
            )));
        }
        let head_dim = match self.head_dim.optional(config)? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(config.refuse(format!(
                    "the width {hidden} does not divide into {heads} heads, and no `{}` says how \
                     wide a head is",
                    self.head_dim.shown()
                )));
            }
        };
        Ok(GroupedAttention {
            heads,
            kv_heads,
            head_dim,
            rope_theta: self.rope_theta.needed(config)?,
            sliding_window: self.sliding_window.optional(config)?,
        })
    }
}

/// A tensor as it is stored. One that is not there gets an empty shape, so that it is missed.
pub(crate) fn opaque_tensor(
    id: LayerTensor,
    name: &NameForm,
    named: &NamedTensors,
    layer: usize,
) -> Result<Option<OpaqueTensor>, Error> {
    let shape = match named.shapes.get(&TensorId::Layer(layer, id)) {
        Some(shape) => shape.clone(),
        None if name.optional => return Ok(None),
        None => Vec::new(),
    };
    if matches!(id, LayerTensor::Linear(_)) && shape.len() != 2 && !shape.is_empty() {
        let reason = format!(
            "`matrices` lists `{}`, which is {shape:?} in layer {layer}; list what is no \
             matrix under `tensors`",
            name.name
        );
        return Err(Error::Descriptor { reason });
    }
    Ok(Some(OpaqueTensor { id, shape, expert_axis: None }))
}

/// The name of a tensor that is only known by its key in a table.
pub(super) fn part_name(table: &str, key: &str) -> Result<PartName, Error> {
    PartName::parse(&format!("{table}.{key}")).map_err(|_| bad_key(key))
}

fn bad_key(key: &str) -> Error {
    let reason = format!(
        "`{key}` cannot name a tensor; use lower-case letters, digits and `_`, at most 30 of them"
    );
    Error::Descriptor { reason }
}
