//! `[experts.opaque]`

use std::collections::BTreeMap;

use moeprune_core::{LayerTensor, OpaqueTensor, PartName, TensorId};
use serde::Deserialize;

use super::attention::part_name;
use crate::{
    Error,
    config::{Config, same_json},
    named_tensors::NamedTensors,
};

/// What files may store of each expert in place of its matrices, in a form that is not decoded. Such
/// a model can be cut, not run. Biases keep the names that the other forms give them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpaqueExpertsForm {
    /// What the config must say of such files, and of no others.
    pub(crate) said: SaidForm,
    /// A tensor `[experts, …]` for each layer, or one for each expert where the name has `{expert}`.
    pub(crate) tensors: BTreeMap<String, String>,
}

/// A member of an object of the config, and its value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaidForm {
    pub(crate) key: String,
    pub(crate) member: String,
    pub(crate) value: String,
}

impl OpaqueExpertsForm {
    /// The names of its tensors that are one for each expert.
    pub(super) fn slots(&self) -> Result<Vec<(LayerTensor, &str)>, Error> {
        let names = self.names()?.into_iter().filter(|(_, name)| is_separate(name));
        Ok(names.map(|(part, name)| (LayerTensor::OfExpert(0, part), name)).collect())
    }

    /// The names of its tensors that hold all experts of a layer.
    pub(super) fn fused(&self) -> Result<Vec<(PartName, &str)>, Error> {
        Ok(self.names()?.into_iter().filter(|(_, name)| !is_separate(name)).collect())
    }

    fn names(&self) -> Result<Vec<(PartName, &str)>, Error> {
        let named = self.tensors.iter();
        named.map(|(key, name)| Ok((part_name("experts", key)?, name.as_str()))).collect()
    }

    /// Checks that the config says so if experts are stored so.
    pub(crate) fn check(&self, config: &Config, named: &NamedTensors) -> Result<(), Error> {
        let SaidForm { key, member, value } = &self.said;
        let of_expert = |id: &TensorId| matches!(id, TensorId::Layer(_, LayerTensor::OfExpert(..)));
        let names = self.names()?;
        let is_named = |part: &PartName| names.iter().any(|(name, _)| name == part);
        let mut fused = named.opaque.keys();
        if !fused.any(|(_, part)| is_named(part)) && !named.shapes.keys().any(of_expert) {
            return Ok(());
        }
        let path = format!("{key}.{member}");
        let found = config.find(std::slice::from_ref(&path))?;
        let expected = serde_json::Value::from(value.as_str()).to_string();
        match found {
            Some(found) if same_json(&expected, found.text) => Ok(()),
            Some(found) => Err(config.refuse(format!(
                "`{path}` is {}, but experts are stored as with {expected}",
                found.shown()
            ))),
            None => {
                Err(config
                    .refuse(format!("lacks `{path}`, but experts are stored as with {expected}")))
            }
        }
    }

    /// What is stored of an expert of a layer; nothing of a layer that has none of these tensors. One
    /// that is missing beside others gets an empty shape, so that it is missed.
    pub(crate) fn of_layer(
        &self,
        named: &NamedTensors,
        layer: usize,
    ) -> Result<Vec<OpaqueTensor>, Error> {
        let stored = |part: PartName| {
            let separate = TensorId::Layer(layer, LayerTensor::OfExpert(0, part));
            named.opaque.get(&(layer, part)).or_else(|| named.shapes.get(&separate))
        };
        let names = self.names()?;
        if names.iter().all(|(part, _)| stored(*part).is_none()) {
            return Ok(Vec::new());
        }
        let tensor = |(part, _): (PartName, &str)| OpaqueTensor {
            id: LayerTensor::OfExpert(0, part),
            shape: stored(part).cloned().unwrap_or_default(),
            expert_axis: None,
            form: Some(self.said.value.clone()),
        };
        Ok(names.into_iter().map(tensor).collect())
    }
}

fn is_separate(name: &str) -> bool {
    name.contains("{expert}")
}
