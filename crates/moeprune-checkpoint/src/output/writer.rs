//! Weights written as they come, into as many files as they need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use moeprune_core::{Dtype, StageError, TensorBytes, TensorSink};

use crate::{
    Error,
    header::{byte_len, header_bytes},
    index::{INDEX_FILE, SINGLE_FILE, index_text},
};

const BUFFER: usize = 1 << 20;

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

/// Writes tensors in an order announced beforehand, holding none of them.
///
/// A safetensors file begins with a list of what is in it, so all names, types and shapes are
/// given first, and then each tensor is [put](TensorSink::put) in that order. Tensors that
/// together fit into one shard become `model.safetensors`; otherwise they fill
/// `model-00001-of-0000N.safetensors` and so on, and [`finish`](Self::finish) writes the index.
/// The same tensors give the same bytes.
///
/// ```
/// use moeprune_checkpoint::{PlannedTensor, ShardedWriter};
/// use moeprune_core::{Dtype, TensorBytes, TensorSink};
///
/// let dir = tempfile::tempdir()?;
/// let plan = |name: &str| PlannedTensor { name: name.into(), dtype: Dtype::F32, shape: vec![2] };
/// let mut writer = ShardedWriter::create(dir.path(), 8, vec![plan("a"), plan("b")])?;
/// let tensor = TensorBytes::encode(Dtype::F32, [2], &[1.0, 2.0])?;
/// writer.put("a", &tensor)?;
/// writer.put("b", &tensor)?;
/// assert_eq!(writer.finish()?.files.len(), 2);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug)]
pub struct ShardedWriter {
    dir: PathBuf,
    shards: Vec<ShardPlan>,
    /// Shard and position in it of the tensor that comes next.
    next: (usize, usize),
    open: Option<(PathBuf, BufWriter<File>)>,
    written: WrittenCheckpoint,
}

/// What a finished writer has written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WrittenCheckpoint {
    /// Names of the weight files in order.
    pub files: Vec<String>,
    /// Bytes of all weight files, headers included.
    pub bytes: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
}

#[derive(Debug)]
struct ShardPlan {
    file: String,
    tensors: Vec<PlannedTensor>,
    header: Vec<u8>,
    data_bytes: u64,
}

impl ShardedWriter {
    /// Plans the shards: each takes tensors in the given order until the next would bring its data
    /// above `max_shard_bytes`; a larger tensor has a shard of its own. Writes nothing yet.
    ///
    /// # Errors
    /// If there are no tensors, a name is given twice, or the size of a tensor cannot be counted.
    pub fn create(
        dir: &Path,
        max_shard_bytes: u64,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        let shards = plan_shards(max_shard_bytes, tensors)?;
        let written = WrittenCheckpoint::default();
        Ok(Self { dir: dir.to_owned(), shards, next: (0, 0), open: None, written })
    }

    /// Bytes that all weight files will have together.
    #[must_use]
    pub fn planned_bytes(&self) -> u64 {
        self.shards.iter().map(ShardPlan::file_bytes).sum()
    }

    /// Makes the last shard durable and writes the index if there are several.
    ///
    /// # Errors
    /// If tensors are missing, or writing fails.
    pub fn finish(mut self) -> Result<WrittenCheckpoint, Error> {
        if let Some(missing) = self.expected() {
            let planned: usize = self.shards.iter().map(|s| s.tensors.len()).sum();
            return Err(Error::Order {
                reason: format!(
                    "finished after {} of {planned} tensors; `{}` comes next",
                    self.written.tensors, missing.name
                ),
            });
        }
        if self.shards.len() > 1 {
            let mut weight_map = BTreeMap::new();
            for shard in &self.shards {
                let file = shard.file.as_str();
                weight_map.extend(shard.tensors.iter().map(|t| (t.name.as_str(), file)));
            }
            let path = self.dir.join(INDEX_FILE);
            let text = index_text(self.written.tensor_bytes, &weight_map);
            let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
            file.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
            file.sync_all().map_err(Error::io("write to disk", &path))?;
        }
        Ok(std::mem::take(&mut self.written))
    }

    fn expected(&self) -> Option<&PlannedTensor> {
        self.shards.get(self.next.0)?.tensors.get(self.next.1)
    }

    fn put_tensor(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        let bad = |reason| Err(Error::Order { reason });
        let Some(expected) = self.expected() else {
            return bad(format!("`{name}` comes after the last tensor announced"));
        };
        if expected.name != name {
            return bad(format!("`{name}` comes where `{}` was announced", expected.name));
        }
        if expected.dtype != tensor.dtype() || expected.shape != tensor.shape() {
            return bad(format!(
                "`{name}` was announced as {} {:?} but is {} {:?}",
                expected.dtype,
                expected.shape,
                tensor.dtype(),
                tensor.shape()
            ));
        }
        if self.open.is_none() {
            self.open_shard()?;
        }
        self.write(tensor.bytes())?;
        self.written.tensors += 1;
        self.written.tensor_bytes += tensor.bytes().len() as u64;
        self.next.1 += 1;
        if self.next.1 == self.shards[self.next.0].tensors.len() {
            self.close_shard()?;
        }
        Ok(())
    }

    fn open_shard(&mut self) -> Result<(), Error> {
        let shard = &self.shards[self.next.0];
        let path = self.dir.join(&shard.file);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let header = shard.header.clone();
        self.open = Some((path, BufWriter::with_capacity(BUFFER, file)));
        self.write(&header)
    }

    fn close_shard(&mut self) -> Result<(), Error> {
        let Some((path, mut writer)) = self.open.take() else { return Ok(()) };
        writer.flush().map_err(|e| self.failed(&path, e))?;
        writer.get_ref().sync_all().map_err(|e| self.failed(&path, e))?;
        let shard = &self.shards[self.next.0];
        self.written.files.push(shard.file.clone());
        self.written.bytes += shard.file_bytes();
        self.next = (self.next.0 + 1, 0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some((path, writer)) = &mut self.open else { return Ok(()) };
        match writer.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(e) => {
                let path = path.clone();
                Err(self.failed(&path, e))
            }
        }
    }

    fn failed(&self, path: &Path, e: std::io::Error) -> Error {
        let action = match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                format!(
                    "write all of the {} bytes of weights ({} of them before this file); make \
                     room for",
                    self.planned_bytes(),
                    self.written.bytes
                )
            }
            _ => "write".to_owned(),
        };
        Error::io(action, path)(e)
    }
}

impl TensorSink for ShardedWriter {
    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), StageError> {
        Ok(self.put_tensor(name, tensor)?)
    }
}

impl ShardPlan {
    fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }
}

fn plan_shards(limit: u64, tensors: Vec<PlannedTensor>) -> Result<Vec<ShardPlan>, Error> {
    let bad = |reason: String| Err(Error::Order { reason });
    let mut names = BTreeSet::new();
    let mut groups: Vec<(Vec<PlannedTensor>, u64)> = Vec::new();
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
            Some((group, sum)) if sum.checked_add(bytes).is_some_and(|sum| sum <= limit) => {
                *sum += bytes;
                group.push(tensor);
            }
            _ => groups.push((vec![tensor], bytes)),
        }
    }
    if groups.is_empty() {
        return bad("no tensors were announced".to_owned());
    }
    let count = groups.len();
    let plan = |(i, (tensors, data_bytes)): (usize, (Vec<PlannedTensor>, u64))| {
        let file = match count {
            1 => SINGLE_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let header = header_bytes(&tensors).map_err(|reason| Error::Order { reason })?;
        Ok(ShardPlan { file, tensors, header, data_bytes })
    };
    groups.into_iter().enumerate().map(plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_how_much_is_needed() {
        let shape = vec![1000];
        let plan = vec![PlannedTensor { name: "a".to_owned(), dtype: Dtype::F32, shape }];
        let writer = ShardedWriter::create(Path::new("out"), 1 << 20, plan).expect("plans");
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let message = writer.failed(Path::new("out/model.safetensors"), full).to_string();
        let bytes = writer.planned_bytes();
        assert!(bytes > 4000, "{bytes}");
        assert!(message.contains(&format!("all of the {bytes} bytes of weights")), "{message}");
        assert!(message.contains("out/model.safetensors: no storage space"), "{message}");
    }
}
