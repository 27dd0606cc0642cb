//! Which tensor goes where: files, headers, index.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::shaped_tensor::ShapedTensor;

/// The file that says which tensor is in which of several.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// One file to be written.
#[derive(Debug)]
pub(crate) struct OutputShard {
    pub(crate) file: String,
    /// Everything before the data.
    pub(crate) header: Vec<u8>,
    pub(crate) tensors: Vec<PlacedTensor>,
    data_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct PlacedTensor {
    pub(crate) tensor: ShapedTensor,
    /// Where its data begins in the file.
    pub(crate) offset: u64,
}

impl OutputShard {
    pub(crate) fn bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }
}

/// Fills each file until the next tensor would bring its data above `limit`; a larger tensor has its
/// own file.
pub(crate) fn plan(tensors: Vec<ShapedTensor>, limit: u64) -> Vec<OutputShard> {
    let mut groups: Vec<(Vec<ShapedTensor>, u64)> = Vec::new();
    for tensor in tensors {
        let bytes = tensor.named.bytes();
        match groups.last_mut() {
            Some((group, sum)) if *sum + bytes <= limit => {
                *sum += bytes;
                group.push(tensor);
            }
            _ => groups.push((vec![tensor], bytes)),
        }
    }
    let count = groups.len();
    let shard = |(i, (tensors, data_bytes)): (usize, (Vec<ShapedTensor>, u64))| {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let header = header(&tensors);
        let mut offset = header.len() as u64;
        let place = |tensor| {
            let placed = PlacedTensor { tensor, offset };
            offset += placed.tensor.named.bytes();
            placed
        };
        let tensors = tensors.into_iter().map(place).collect();
        OutputShard { file, header, tensors, data_bytes }
    };
    groups.into_iter().enumerate().map(shard).collect()
}

/// The index, if one is needed.
pub(crate) fn index(shards: &[OutputShard]) -> Option<String> {
    if shards.len() < 2 {
        return None;
    }
    let mut weight_map = BTreeMap::new();
    for shard in shards {
        weight_map.extend(shard.tensors.iter().map(|t| (&t.tensor.named.name, &shard.file)));
    }
    let total: u64 = shards.iter().map(|s| s.data_bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    Some(format!("{index:#}\n"))
}

/// The length of the JSON (u64, little-endian), and JSON padded to a multiple of 8.
fn header(tensors: &[ShapedTensor]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut start = 0;
    for ShapedTensor { named, .. } in tensors {
        let end = start + named.bytes();
        let dtype = named.dtype.to_string();
        let entry: Value =
            json!({ "dtype": dtype, "shape": named.shape, "data_offsets": [start, end] });
        entries.insert(named.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
