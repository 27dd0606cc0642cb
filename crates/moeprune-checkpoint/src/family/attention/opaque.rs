//! `kind = "opaque"`

use std::collections::BTreeMap;

use moeprune_core::{LayerTensor, OpaqueTensor, PartName, TensorId};
use serde::Deserialize;

use super::{Model, NameForm, Named, NamedTensors};
use crate::Error;

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

impl OpaqueForm {
    pub(super) fn tensors(&self) -> Result<Vec<(LayerTensor, &NameForm)>, Error> {
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

    /// The tensors of a layer that are stored.
    pub(super) fn read(&self, model: Model<'_>, layer: usize) -> Result<Vec<OpaqueTensor>, Error> {
        let mut tensors = Vec::new();
        for (id, name) in self.tensors()? {
            tensors.extend(opaque_tensor(id, name, model.named, layer)?);
        }
        Ok(tensors)
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
    Ok(Some(OpaqueTensor { id, shape, expert_axis: None, form: None }))
}

/// The name of a tensor that is only known by its key in a table.
pub(in crate::family) fn part_name(table: &str, key: &str) -> Result<PartName, Error> {
    PartName::parse(&format!("{table}.{key}")).map_err(|_| bad_key(key))
}

fn bad_key(key: &str) -> Error {
    let reason = format!(
        "`{key}` cannot name a tensor; use lower-case letters, digits and `_`, at most 30 of them"
    );
    Error::Descriptor { reason }
}
