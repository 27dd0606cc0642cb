//! `model.safetensors.index.json`: which shard holds which tensor.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use moeprune_files::Files;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Error,
    json::{JsonText, Members},
    number::whole,
};

/// Name of the index, and of the file of a checkpoint that needs none.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

const MAX_BYTES: u64 = 100_000_000;

/// A parsed index; all shard names are plain file names.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// Shard by tensor.
    weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors, as announced.
    pub(super) total_size: Option<u64>,
}

#[derive(Deserialize)]
struct IndexForm<'a> {
    #[serde(default, borrow)]
    metadata: Option<Members<&'a RawValue>>,
    weight_map: Members<String>,
}

impl Index {
    /// Reads the index, if there is one.
    pub(super) fn read(files: &dyn Files) -> Result<Option<Self>, Error> {
        let text = files.read(Path::new(INDEX_FILE), MAX_BYTES + 1);
        let Some(text) = text.map_err(Error::in_files(files))? else { return Ok(None) };
        let path = files.path_of(Path::new(INDEX_FILE));
        let bad = |reason: String| Error::Index { path: path.clone(), reason };
        if text.len() as u64 > MAX_BYTES {
            return Err(bad(format!("is larger than {MAX_BYTES} bytes; not an index")));
        }
        let text = JsonText::decoded(text).map_err(bad)?;
        let form: IndexForm<'_> = serde_json::from_str(text.json())
            .map_err(|e| bad(format!("is not an index of tensors: {e}")))?;
        if form.weight_map.0.is_empty() {
            return Err(bad("names no tensors".to_owned()));
        }
        for (tensor, shard) in &form.weight_map.0 {
            if !is_plain_name(shard) {
                return Err(bad(format!(
                    "puts tensor `{tensor}` into `{shard}`; a shard must lie in the model \
                     directory itself"
                )));
            }
        }
        let total_size = form.metadata.as_ref().and_then(|m| m.get("total_size"));
        let total_size = total_size.and_then(|size| whole(size.get()));
        let weight_map = form.weight_map.0.into_iter().collect();
        Ok(Some(Self { path, weight_map, total_size }))
    }

    /// The shards in the order of their names.
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Checks that the shards hold what the index says, given each tensor and its shard.
    pub(super) fn check<'a>(
        &self,
        held: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        let bad = |reason: String| Error::Index { path: self.path.clone(), reason };
        let held: BTreeMap<&str, &str> = held.collect();
        for (tensor, shard) in &self.weight_map {
            match held.get(tensor.as_str()) {
                Some(in_shard) if in_shard == shard => {}
                Some(other) => {
                    return Err(bad(format!(
                        "puts tensor `{tensor}` into {shard}, but it is in {other}"
                    )));
                }
                None => {
                    return Err(bad(format!(
                        "puts tensor `{tensor}` into {shard}, but no shard holds it"
                    )));
                }
            }
        }
        match held.iter().find(|(tensor, _)| !self.weight_map.contains_key(**tensor)) {
            Some((tensor, shard)) => Err(bad(format!(
                "does not name tensor `{tensor}`, which is in {shard}; index and shards are not \
                 of one checkpoint"
            ))),
            None => Ok(()),
        }
    }
}

/// The text of an index, in the layout that Hugging Face libraries write.
pub(super) fn index_text(total_size: u64, weight_map: &BTreeMap<&str, &str>) -> String {
    let index = serde_json::json!({
        "metadata": { "total_size": total_size },
        "weight_map": weight_map,
    });
    format!("{index:#}\n")
}

/// Whether this is the name of a file and nothing more: no folder, no `..`, not absolute.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(c)) if c == OsStr::new(name));
    plain && components.next().is_none() && !name.contains(['/', '\\', '\0'])
}
