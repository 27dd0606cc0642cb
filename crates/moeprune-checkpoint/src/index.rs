//! `model.safetensors.index.json`: which shard holds which tensor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, json::Members, model_directory::is_plain_name};

/// Name of the index, and of the file of a checkpoint that needs none.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

const MAX_BYTES: u64 = 100_000_000;

/// A parsed index; all shard names are plain file names.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Shard by tensor.
    weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors, as announced.
    pub(crate) total_size: Option<u64>,
}

#[derive(Deserialize)]
struct IndexForm<'a> {
    #[serde(default, borrow)]
    metadata: Option<Members<&'a RawValue>>,
    weight_map: Members<String>,
}

impl Index {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut text = Vec::new();
        let file = File::open(path).map_err(Error::io("open", path))?;
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut text);
        read.map_err(Error::io("read", path))?;
        let bad = |reason: String| Error::Index { path: path.to_owned(), reason };
        if text.len() as u64 > MAX_BYTES {
            return Err(bad(format!("is larger than {MAX_BYTES} bytes; not an index")));
        }
        let form: IndexForm<'_> = serde_json::from_slice(&text)
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
        let total_size = total_size.and_then(|size| as_bytes(size.get()));
        let weight_map = form.weight_map.0.into_iter().collect();
        Ok(Self { path: path.to_owned(), weight_map, total_size })
    }

    /// The shards in the order of their names.
    pub(crate) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Checks that the shards hold what the index says, given each tensor and its shard.
    pub(crate) fn check<'a>(
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
pub(crate) fn index_text(total_size: u64, weight_map: &BTreeMap<&str, &str>) -> String {
    let index = serde_json::json!({
        "metadata": { "total_size": total_size },
        "weight_map": weight_map,
    });
    format!("{index:#}\n")
}

/// Some tools write the size as a float.
fn as_bytes(json: &str) -> Option<u64> {
    let exact = |f: f64| (f >= 0.0 && f.fract() == 0.0 && f < 2_f64.powi(53)).then_some(f as u64);
    let float = || serde_json::from_str::<f64>(json).ok().and_then(exact);
    serde_json::from_str::<u64>(json).ok().or_else(float)
}
