//! The headers of GGUF files, and those of a model made of them.

use std::collections::BTreeMap;

use moeprune_gguf::{Entries, Header, NewTensor, Value};
use serde_json::Value as Json;

use super::{
    super::{PlannedFile, PlannedTensor, PlannedWeights, PrunedCounts},
    facts::Said,
};

/// The files of a model in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub(super) files: Vec<SourceFile>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) name: String,
    /// As it was read.
    pub(super) header: Header,
    /// What is to be said of the model.
    pub(super) entries: Entries,
    /// Its length.
    pub(super) bytes: u64,
}

/// The key that says of which architecture a model is, and what other keys begin with.
const ARCHITECTURE: &str = "general.architecture";

impl Source {
    fn first(&self) -> Result<&Entries, String> {
        self.files.first().map(|file| &file.entries).ok_or_else(|| "has no GGUF file".to_owned())
    }

    /// What the model is called, and what the metadata say of it.
    pub(super) fn said(&self) -> Result<(String, Said), String> {
        let entries = self.first()?;
        let architecture = entries
            .text(ARCHITECTURE)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("lacks `{ARCHITECTURE}`"))?
            .to_owned();
        let key = |key: &str| format!("{architecture}.{key}");
        let number = |name: &str| entries.number(&key(name)).map_err(|e| e.to_string());
        let layers =
            number("block_count")?.ok_or_else(|| format!("lacks `{}`", key("block_count")))?;
        let behind = number("nextn_predict_layers")?.unwrap_or(0);
        let experts = number("expert_count")?.unwrap_or(0);
        if experts == 0 {
            return Err(format!(
                "`{}` is {experts}, so the model has no experts and nothing to prune",
                key("expert_count")
            ));
        }
        let used = key("expert_used_count");
        let used = match entries.get(&used) {
            Some(Value::Array(_)) => {
                // Of layers without experts any number may stand there.
                let numbers = entries.numbers(&used).map_err(|e| e.to_string())?;
                let numbers = numbers.unwrap_or_default().into_iter().map(|number| number.max(1));
                Json::from(numbers.collect::<Vec<u64>>())
            }
            _ => Json::from(number("expert_used_count")?),
        };
        let size = |count: u64| usize::try_from(count).map_err(|_| format!("{count} is too large"));
        let (layers, behind) = (size(layers)?, size(behind)?);
        if behind > 0 && behind >= layers {
            return Err(format!(
                "`{}` is {layers}, but {behind} of them are layers for multi-token prediction",
                key("block_count")
            ));
        }
        let said = Said {
            layers,
            behind,
            experts,
            used,
            context: number("context_length")?,
            groups: number("expert_group_count")?,
            groups_used: number("expert_group_used_count")?,
        };
        Ok((architecture, said))
    }

    /// The same with other counts.
    pub(super) fn with_counts(&self, counts: &PrunedCounts) -> Result<Self, String> {
        let (architecture, said) = self.said()?;
        let key = |key: &str| format!("{architecture}.{key}");
        if counts.drops_extra && said.behind > 0 {
            return Err("layers for multi-token prediction stay in a GGUF file, whose lists have an entry for each: \
                        use `--mtp prune`"
                .to_owned());
        }
        let Some(&experts) = counts.experts.first() else { return Ok(self.clone()) };
        if let Some(&other) = counts.experts.iter().find(|count| **count != experts) {
            return Err(format!(
                "a GGUF file says one number of experts for all layers, and layers would keep \
                 {experts} and {other}; keep the same number in each (`--budget uniform`)"
            ));
        }
        let mut made = self.clone();
        let Some(SourceFile { entries, .. }) = made.files.first_mut() else { return Ok(made) };
        let mut set =
            |name: &str, value: u64| entries.set(&key(name), value).map_err(|e| e.to_string());
        set("expert_count", experts as u64)?;
        Ok(made)
    }

    /// The files that hold these tensors, each in the file in which it is here.
    pub(super) fn plan(&self, tensors: Vec<PlannedTensor>) -> Result<PlannedWeights, String> {
        let mut left: BTreeMap<String, PlannedTensor> = BTreeMap::new();
        for tensor in tensors {
            if let Some(twice) = left.insert(tensor.name.clone(), tensor) {
                return Err(format!("`{}` is announced twice", twice.name));
            }
        }
        if left.is_empty() {
            return Err("no tensors were announced".to_owned());
        }
        let count = left.len() as u64;
        let files = self.files.iter().map(|file| file.plan(&mut left, count));
        let files = files.collect::<Result<_, _>>()?;
        match left.pop_first() {
            None => Ok(PlannedWeights { files, index: None }),
            Some((name, _)) => Err(format!("`{name}` is in no file of the source")),
        }
    }
}

/// How many tensors all files of a set have.
const ALL_TENSORS: &str = "split.tensors.count";

impl SourceFile {
    /// This file with those of its tensors that are left, taken out of `left`; `count`: of all files.
    fn plan(
        &self,
        left: &mut BTreeMap<String, PlannedTensor>,
        count: u64,
    ) -> Result<PlannedFile, String> {
        let tensors = self.header.tensors().iter().filter_map(|info| left.remove(&info.name));
        let tensors: Vec<PlannedTensor> = tensors.collect();
        let mut entries = self.entries.clone();
        if entries.get(ALL_TENSORS).is_some() {
            entries.set(ALL_TENSORS, count).map_err(|e| e.to_string())?;
        }
        let new = tensors.iter().map(|PlannedTensor { name, dtype, shape }| NewTensor {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
        });
        let header = Header::new(self.header.version(), entries, new.collect());
        let header = header.map_err(|e| e.to_string())?;
        // As the source: programs differ in whether they pad the last tensor.
        let bytes = match self.bytes >= self.header.data_end() {
            true => header.data_end(),
            false => {
                header.tensors().last().map_or_else(|| header.data_start(), |last| last.range.end)
            }
        };
        Ok(PlannedFile {
            name: self.name.clone(),
            ranges: header.tensors().iter().map(|tensor| tensor.range.clone()).collect(),
            bytes,
            header: header.to_bytes(),
            tensors,
        })
    }
}
