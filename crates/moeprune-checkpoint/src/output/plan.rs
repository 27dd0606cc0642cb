//! Which tensor goes where in which shard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use moeprune_core::Dtype;

use crate::{
    Error,
    header::{byte_len, header_bytes},
    index::SINGLE_FILE,
};

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct PlannedTensor {
    /// Name on disk.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// A weight file that will be written.
#[derive(Debug)]
pub(super) struct ShardPlan {
    pub(super) file: String,
    pub(super) tensors: Vec<PlannedTensor>,
    /// Where each tensor begins in the file.
    pub(super) offsets: Vec<u64>,
    pub(super) header: Vec<u8>,
    pub(super) data_bytes: u64,
}

impl ShardPlan {
    pub(super) fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }

    pub(super) fn tensor_bytes(&self, tensor: usize) -> u64 {
        let next = self.offsets.get(tensor + 1).copied().unwrap_or_else(|| self.file_bytes());
        next - self.offsets[tensor]
    }

    /// Whether the file is there. It is an error if it is not the one planned.
    pub(super) fn is_begun(&self, dir: &Path) -> Result<bool, Error> {
        let path = dir.join(&self.file);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let (bytes, planned) =
            (file.metadata().map_err(Error::io("inspect", &path))?.len(), self.file_bytes());
        if bytes != planned {
            let what = format!("is {bytes} bytes long, but would be {planned} bytes");
            return Err(other_plan(&path, &what));
        }
        let mut header = vec![0; self.header.len()];
        file.read_exact(&mut header).map_err(Error::io("read the header of", &path))?;
        if header == self.header {
            return Ok(true);
        }
        Err(other_plan(&path, "announces other tensors than would be written"))
    }
}

pub(super) fn other_plan(path: &Path, what: &str) -> Error {
    let reason = format!(
        "{what}; it was begun for another plan or another model, and cannot be resumed with this \
         one: start anew, or go back to what it was begun with"
    );
    Error::Output { path: path.to_owned(), reason }
}

/// Shard and position in it, by name.
pub(super) type Places = BTreeMap<String, (usize, usize)>;

pub(super) fn places(shards: &[ShardPlan]) -> Places {
    let of_shard = |(s, shard): (usize, &ShardPlan)| {
        let names = shard.tensors.iter().enumerate();
        names.map(|(t, tensor)| (tensor.name.clone(), (s, t))).collect::<Vec<_>>()
    };
    shards.iter().enumerate().flat_map(of_shard).collect()
}

/// Fills shards with tensors in the given order until the next would bring the data of one above
/// `limit`; a larger tensor has a shard of its own.
pub(super) fn plan_shards(
    limit: u64,
    tensors: Vec<PlannedTensor>,
) -> Result<Vec<ShardPlan>, Error> {
    let bad = |reason: String| Err(Error::Order { reason });
    let mut names = BTreeSet::new();
    let mut groups: Vec<Group> = Vec::new();
    for tensor in tensors {
        let PlannedTensor { name, dtype, shape } = &tensor;
        if name == "__metadata__" || !names.insert(name.clone()) {
            return bad(format!("`{name}` is announced twice or is no tensor's name"));
        }
        let Some(bytes) = byte_len(dtype.bits(), shape) else {
            return bad(format!("`{name}`: {dtype} {shape:?} has no whole number of bytes"));
        };
        let bytes = bytes as u64;
        match groups.last_mut() {
            Some(group) if group.bytes.checked_add(bytes).is_some_and(|sum| sum <= limit) => {
                group.starts.push(group.bytes);
                group.bytes += bytes;
                group.tensors.push(tensor);
            }
            _ => groups.push(Group { tensors: vec![tensor], starts: vec![0], bytes }),
        }
    }
    if groups.is_empty() {
        return bad("no tensors were announced".to_owned());
    }
    let count = groups.len();
    let plan = |(i, Group { tensors, mut starts, bytes }): (usize, Group)| {
        let file = match count {
            1 => SINGLE_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let header = header_bytes(&tensors).map_err(|reason| Error::Order { reason })?;
        starts.iter_mut().for_each(|start| *start += header.len() as u64);
        Ok(ShardPlan { file, tensors, offsets: starts, header, data_bytes: bytes })
    };
    groups.into_iter().enumerate().map(plan).collect()
}

/// Tensors that share a file.
struct Group {
    tensors: Vec<PlannedTensor>,
    /// From the beginning of the data.
    starts: Vec<u64>,
    bytes: u64,
}
