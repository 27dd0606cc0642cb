//! The headers of GGUF files, and those of a model made of them.

use std::collections::BTreeMap;

use moeprune_gguf::{Header, TensorInfo};
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
    pub(super) header: Header,
    /// Its length.
    pub(super) bytes: u64,
}

/// The key that says of which architecture a model is, and what other keys begin with.
const ARCHITECTURE: &str = "general.architecture";

impl Source {
    fn first(&self) -> Result<&Header, String> {
        self.files.first().map(|file| &file.header).ok_or_else(|| "has no GGUF file".to_owned())
    }

    /// What the model is called, and what the metadata say of it.
    pub(super) fn said(&self) -> Result<(String, Said), String> {
        let entries = &self.first()?.entries;
        let architecture = entries
            .text(ARCHITECTURE)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("lacks `{ARCHITECTURE}`"))?;
        let key = |key: &str| format!("{architecture}.{key}");
        let number = |name: &str| entries.number(&key(name)).map_err(|e| e.to_string());
        let layers = number("block_count")?.ok_or_else(|| format!("lacks `{}`", key("block_count")))?;
        let behind = number("nextn_predict_layers")?.unwrap_or(0);
        let experts = number("expert_count")?.unwrap_or(0);
        if experts == 0 {
            return Err(format!(
                "`{}` is {experts}, so the model has no experts and nothing to prune",
                key("expert_count")
            ));
        }
        let used = key("expert_used_count");
        let used = match entries.numbers(&used).map_err(|e| e.to_string())? {
            Some(list) => Json::from(list),
            None => Json::from(number("expert_used_count")?),
        };
        let size = |count: u64| usize::try_from(count).map_err(|_| format!("{count} is too large"));
        let (layers, behind) = (size(layers)?, size(behind)?);
        if behind >= layers {
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
        let Some(&experts) = counts.experts.first() else { return Ok(self.clone()) };
        if let Some(&other) = counts.experts.iter().find(|count| **count != experts) {
            return Err(format!(
                "a GGUF file says one number of experts for all layers, and layers would keep \
                 {experts} and {other}; keep the same number in each (`--budget uniform`)"
            ));
        }
        let mut made = self.clone();
        let Some(SourceFile { header, .. }) = made.files.first_mut() else { return Ok(made) };
        let mut set = |name: &str, value: u64| {
            header.entries.set(&key(name), value).map_err(|e| e.to_string())
        };
        set("expert_count", experts as u64)?;
        if counts.drops_extra && said.behind > 0 {
            set("block_count", (said.layers - said.behind) as u64)?;
            set("nextn_predict_layers", 0)?;
        }
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
        let align = self.header.alignment.max(1);
        let padded = |bytes: u64| bytes.checked_next_multiple_of(align);
        let too_large = || "the sizes of the tensors cannot be counted".to_owned();
        let mut by_place: Vec<&TensorInfo> = self.header.tensors.iter().collect();
        by_place.sort_by_key(|tensor| tensor.range.start);
        let mut placed = BTreeMap::new();
        let (mut tensors, mut offsets, mut end) = (Vec::new(), Vec::new(), 0_u64);
        for info in &by_place {
            let Some(planned) = left.remove(&info.name) else { continue };
            let bytes = planned.dtype.bytes_of_shape(&planned.shape).ok_or_else(too_large)? as u64;
            let start = padded(end).ok_or_else(too_large)?;
            end = start.checked_add(bytes).ok_or_else(too_large)?;
            placed.insert(info.name.clone(), (start..end, planned.shape.clone()));
            offsets.push(start..end);
            tensors.push(planned);
        }
        let in_order = self.header.tensors.iter().filter_map(|info| {
            let (range, shape) = placed.remove(&info.name)?;
            // As if the header were as long as the source's: only the distance from its end counts.
            let range = self.header.data_start + range.start..self.header.data_start + range.end;
            Some(TensorInfo { range, shape, ..info.clone() })
        });
        let mut header = Header { tensors: in_order.collect(), ..self.header.clone() };
        if header.entries.number(ALL_TENSORS).is_ok_and(|all| all.is_some()) {
            header.entries.set(ALL_TENSORS, count).map_err(|e| e.to_string())?;
        }
        let header = header.to_bytes();
        let data = header.len() as u64;
        let last = by_place.last().map_or(0, |tensor| tensor.range.end);
        // As the source: programs differ in whether they pad the last tensor.
        let end = if self.bytes > last { padded(end).ok_or_else(too_large)? } else { end };
        let ranges = offsets.into_iter().map(|range| data + range.start..data + range.end);
        Ok(PlannedFile {
            name: self.name.clone(),
            ranges: ranges.collect(),
            bytes: data + end,
            header,
            tensors,
        })
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.header.entries.number(key).map_err(|e| e.to_string())
    }
}

impl Source {
    /// Checks that the files are one model: all of a set, each its own part of it, no tensor twice.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (at, file) in self.files.iter().enumerate() {
            let count = file.number("split.count")?.unwrap_or(1).max(1);
            if count != self.files.len() as u64 {
                return Err(format!(
                    "{} says that it is one of {count} files, but {} belong to the model",
                    file.name,
                    self.files.len()
                ));
            }
            if let Some(number) = file.number("split.no")?.filter(|number| *number != at as u64) {
                let at = at + 1;
                return Err(format!(
                    "{} says that it is file {} of its set, but its name makes it file {at}",
                    file.name,
                    number + 1
                ));
            }
            for tensor in &file.header.tensors {
                if let Some(other) = seen.insert(&tensor.name, &file.name) {
                    return Err(format!("`{}` is in {other} and in {}", tensor.name, file.name));
                }
            }
        }
        let Some(first) = self.files.first() else { return Ok(()) };
        match first.number(ALL_TENSORS)? {
            Some(count) if count != seen.len() as u64 => Err(format!(
                "{} says that there are {count} tensors in all files, and there are {}",
                first.name,
                seen.len()
            )),
            _ => Ok(()),
        }
    }
}
