//! The TOML form of a published model: `published/*.toml`.

use std::{collections::BTreeMap, ops::Range};

use moeprune_core::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{shaped_tensor::NamedTensor, size::size};

/// A published model as it is written. Names and sizes of its tensors are given for themselves, and
/// not read off a family's descriptor, which is held against them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form {
    /// The object of the config that all keys stand in; absent: its top level.
    pub(crate) within: Option<String>,
    pub(crate) reduce: ReduceForm,
    /// What `config.json` says.
    pub(crate) config: Map<String, Value>,
    tensors: Vec<GroupForm>,
}

/// Config keys by what a reduced model has less of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReduceForm {
    pub(crate) layers: String,
    /// How many layers come before the first with experts; absent: none.
    pub(crate) dense: Option<String>,
    pub(crate) experts: String,
    pub(crate) top_k: String,
    /// Divided by the scale; the width of the hidden state is the first.
    pub(crate) widths: Vec<String>,
    /// Lists of one entry per layer.
    #[serde(default)]
    pub(crate) lists: Vec<String>,
    pub(crate) heads: Vec<HeadsForm>,
}

/// Heads of attention.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadsForm {
    /// Their number, and the number of groups of them.
    pub(crate) counts: Vec<String>,
    /// How wide one is; empty: the hidden state's width over the first count.
    #[serde(default)]
    pub(crate) widths: Vec<String>,
}

/// Tensors of the same layers and element type.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupForm {
    /// `first..end`, for `{layer}` in names; absent: no layer's.
    layers: Option<String>,
    /// Only layers `l` of which `l + 1` is a multiple of this.
    every: Option<String>,
    /// Only the others.
    not_every: Option<String>,
    dtype: Option<DtypeForm>,
    /// One element for each block with sides of this size, the last of which may be smaller.
    per_block: Option<usize>,
    /// Sizes by name, in which `{expert}` stands for each expert.
    names: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum DtypeForm {
    #[serde(rename = "F8_E4M3")]
    Fp8,
    F32,
    U8,
}

impl Form {
    /// A number of the config.
    pub(crate) fn number(&self, key: &str) -> Option<usize> {
        let number = self.keys()?.get(key)?.as_u64()?;
        usize::try_from(number).ok()
    }

    /// The part of the config that keys stand in.
    pub(crate) fn keys(&self) -> Option<&Map<String, Value>> {
        match &self.within {
            Some(key) => self.config.get(key)?.as_object(),
            None => Some(&self.config),
        }
    }

    /// The same, to be changed.
    pub(crate) fn keys_mut(&mut self) -> Option<&mut Map<String, Value>> {
        match &self.within {
            Some(key) => self.config.get_mut(key)?.as_object_mut(),
            None => Some(&mut self.config),
        }
    }

    /// All tensors with the sizes that the config has now, or what is wrong with the form.
    pub(crate) fn tensors(&self) -> Result<Vec<NamedTensor>, String> {
        let experts = self.size(&self.reduce.experts)?;
        let mut tensors = Vec::new();
        for group in &self.tensors {
            let dtype = match group.dtype {
                Some(DtypeForm::Fp8) => Dtype::F8_E4M3,
                Some(DtypeForm::F32) => Dtype::F32,
                Some(DtypeForm::U8) => Dtype::U8,
                None => Dtype::BF16,
            };
            for (name, sizes) in &group.names {
                let block = group.per_block.unwrap_or(1).max(1);
                let size = |text| Ok(self.size(text)?.div_ceil(block));
                let shape: Vec<usize> =
                    sizes.split(',').map(size).collect::<Result<_, String>>()?;
                for layer in self.layers_of(group)? {
                    let name = name.replace("{layer}", &layer.to_string());
                    let copies = if name.contains("{expert}") { experts } else { 1 };
                    tensors.extend((0..copies).map(|expert| NamedTensor {
                        name: name.replace("{expert}", &expert.to_string()),
                        dtype,
                        shape: shape.clone(),
                    }));
                }
            }
        }
        Ok(tensors)
    }

    /// The layers of a group; of one that is no layer's, any number.
    fn layers_of(&self, group: &GroupForm) -> Result<Vec<usize>, String> {
        let Some(range) = &group.layers else { return Ok(vec![0]) };
        let (first, end) = range.split_once("..").ok_or("layers without `..`")?;
        let range: Range<usize> = self.size(first)?..self.size(end)?;
        let every = |key: &Option<String>| key.as_ref().map(|key| self.size(key)).transpose();
        let (every, not_every) = (every(&group.every)?, every(&group.not_every)?);
        let is_in = |&layer: &usize| {
            let is_nth = |n: usize| (layer + 1).is_multiple_of(n);
            every.is_none_or(is_nth) && !not_every.is_some_and(is_nth)
        };
        Ok(range.filter(is_in).collect())
    }

    fn size(&self, expression: &str) -> Result<usize, String> {
        size(expression, &|key| self.number(key))
    }
}
