//! Weights written as they come, each to the place it was given beforehand.

mod begun;
mod copies;
mod files;
mod written;

use std::{
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use moeprune_core::{Dtype, StageError, TensorBytes, TensorSink};
use moeprune_files::{Transfers, sync};

pub use self::copies::RangeCopy;
use self::{
    begun::{Places, is_begun, other_plan, places},
    written::Written,
};
use crate::{
    Error,
    container::{OutputForm, PlannedFile, PlannedIndex, PlannedTensor, WeightRequest},
};

/// Writes tensors announced beforehand, in any order, holding none of them.
///
/// A weight file begins with a list of what is in it, so all names, types and shapes are given
/// first, which fixes the place of every tensor. Then each is [put](TensorSink::put) or
/// [copied](Self::copy) there, whole or in [pieces](Self::put_range): one tensor may be all experts
/// of a layer. In safetensors, tensors that together fit into one file become `model.safetensors`;
/// otherwise they fill `model-00001-of-0000N.safetensors` and so on, and [`finish`](Self::finish)
/// writes the index. The same tensors give the same bytes, in any order.
///
/// A file has its header and its final length from the beginning; what was not put yet is a hole.
/// A writer that ended early can be [resumed](Self::resume) by a caller that knows which tensors were
/// [made durable](Self::sync).
///
/// ```
/// use moeprune_checkpoint::{PlannedTensor, ShardedWriter};
/// use moeprune_core::{Dtype, TensorBytes, TensorSink};
///
/// let dir = tempfile::tempdir()?;
/// let plan = |name: &str| PlannedTensor { name: name.into(), dtype: Dtype::F32, shape: vec![2] };
/// let mut writer = ShardedWriter::create(dir.path(), 8, vec![plan("a"), plan("b")])?;
/// let tensor = TensorBytes::encode(Dtype::F32, [2], &[1.0, 2.0])?;
/// writer.put("b", &tensor)?;
/// assert_eq!(writer.missing().collect::<Vec<_>>(), ["a"]);
/// writer.put("a", &tensor)?;
/// assert_eq!(writer.finish()?.files.len(), 2);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug)]
pub struct ShardedWriter {
    dir: PathBuf,
    shards: Vec<Shard>,
    places: Places,
    index: Option<PlannedIndex>,
    /// Whether files of an earlier process may be there.
    resumed: bool,
    /// Whether files were made since the directory was last made durable.
    files_made: bool,
    /// Counts uses of files.
    clock: u64,
    written_bytes: u64,
    transfers: Transfers,
}

#[derive(Debug)]
struct Shard {
    plan: PlannedFile,
    /// By tensor.
    written: Vec<Written>,
    /// Whether the file is there.
    begun: bool,
    file: Option<File>,
    /// When the file was used last.
    used: u64,
    /// Whether something was written that was not made durable.
    dirty: bool,
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

impl ShardedWriter {
    /// Plans the files: each takes tensors in the given order until the next would bring its data
    /// above the form's limit; a larger tensor has a file of its own. Writes nothing yet; a file
    /// is made when the first of its tensors comes, and must be new.
    ///
    /// The form is [that of a model](crate::Checkpoint::output_form), or a limit for safetensors files.
    ///
    /// # Errors
    /// If there are no tensors, a name is given twice, or the size of a tensor cannot be counted.
    pub fn create<'a>(
        dir: &Path,
        form: impl Into<OutputForm<'a>>,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        Self::planned(dir, form.into(), tensors)
    }

    fn planned(
        dir: &Path,
        form: OutputForm<'_>,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        let OutputForm { container, max_file_bytes, metadata, own_files } = form;
        let request = WeightRequest { tensors, max_file_bytes, metadata, own_files };
        let plan = container.plan(request)?;
        let places = places(&plan.files);
        let shard = |plan: PlannedFile| Shard {
            written: plan.ranges.iter().map(|r| Written::nothing_of(r.end - r.start)).collect(),
            plan,
            begun: false,
            file: None,
            used: 0,
            dirty: false,
        };
        Ok(Self {
            dir: dir.to_owned(),
            shards: plan.files.into_iter().map(shard).collect(),
            places,
            index: plan.index,
            resumed: false,
            files_made: false,
            clock: 0,
            written_bytes: 0,
            transfers: Transfers::default(),
        })
    }

    /// As [`create`](Self::create), on top of what an earlier writer with the same plan left in
    /// `dir`. Every tensor counts as missing until it is put again, or declared to be there with
    /// [`mark_written`](Self::mark_written).
    ///
    /// # Errors
    /// As [`create`](Self::create), and if a weight file in `dir` is not one of this plan: its
    /// name, its length or its header differ.
    pub fn resume<'a>(
        dir: &Path,
        form: impl Into<OutputForm<'a>>,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        let form = form.into();
        let extension = form.container.extension();
        let mut writer = Self::planned(dir, form, tensors)?;
        writer.resumed = true;
        for shard in &mut writer.shards {
            shard.begun = is_begun(&shard.plan, dir)?;
        }
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let entry = entry.map_err(Error::io("list", dir))?;
            let (name, path) = (entry.file_name(), entry.path());
            let planned = writer.shards.iter().any(|s| name == *s.plan.name);
            let is_weights = path.extension().is_some_and(|e| e == extension);
            if is_weights && !planned {
                return Err(other_plan(&path, "is not a file that would be written"));
            }
        }
        Ok(writer)
    }

    /// Declares that an earlier process wrote this tensor and made it durable. Harmless if it is
    /// declared already.
    ///
    /// # Errors
    /// If the tensor was not announced, or its file is not there.
    pub fn mark_written(&mut self, name: &str) -> Result<(), Error> {
        let (s, t) = self.place(name)?;
        self.mark_range_written(name, 0..self.bytes_of(s, t))
    }

    /// As [`mark_written`](Self::mark_written), of some bytes of a tensor.
    ///
    /// # Errors
    /// As [`mark_written`](Self::mark_written), and if the tensor has no such bytes.
    pub fn mark_range_written(&mut self, name: &str, range: Range<u64>) -> Result<(), Error> {
        let (s, t) = self.place(name)?;
        self.check_within(name, &range)?;
        if !self.shards[s].begun {
            let file = &self.shards[s].plan.name;
            let reason = format!(
                "`{name}` is said to have been written by an earlier process, but there was no \
                 {file}; start again"
            );
            return Err(Error::Order { reason });
        }
        self.mark(s, t, &range);
        Ok(())
    }

    /// Puts some bytes of a tensor that begin at `at`, both counted in the tensor as it is stored:
    /// an expert of a tensor that holds all of a layer, say. Pieces come in any order; the tensor
    /// is complete when all of its bytes were put.
    ///
    /// # Errors
    /// If the tensor was not announced, has no such bytes, or some of them were put before; or if
    /// writing fails.
    pub fn put_range(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = at..at.saturating_add(bytes.len() as u64);
        let (s, t) = self.free_range(name, &range)?;
        let place = self.shards[s].plan.ranges[t].start + at;
        self.write(s, place, bytes)?;
        self.mark(s, t, &range);
        Ok(())
    }

    /// Puts bytes of a tensor again, all of which were put before or written by an earlier process.
    ///
    /// # Errors
    /// If the tensor was not announced, has no such bytes, or is not complete; or if writing fails.
    pub fn replace_range(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = at..at.saturating_add(bytes.len() as u64);
        let (s, t) = self.place(name)?;
        self.check_within(name, &range)?;
        if !self.shards[s].written[t].is_complete() {
            let reason = format!("`{name}` is to be replaced, and was not written yet");
            return Err(Error::Order { reason });
        }
        let place = self.shards[s].plan.ranges[t].start + at;
        self.write(s, place, bytes)
    }

    /// Makes everything durable that was put or copied so far, and the names of the files.
    ///
    /// # Errors
    /// If the system fails to, as on a full disk.
    pub fn sync(&mut self) -> Result<(), Error> {
        for s in 0..self.shards.len() {
            self.sync_shard(s)?;
            if self.shards[s].is_complete() {
                self.shards[s].file = None;
            }
        }
        if self.files_made {
            sync(&self.dir)?;
            self.files_made = false;
        }
        Ok(())
    }

    /// Bytes that all weight files will have together.
    #[must_use]
    pub fn planned_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.plan.bytes).sum()
    }

    /// Names of the tensors that were not put yet, in the order they were announced.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| {
            let tensors = shard.plan.tensors.iter().zip(&shard.written);
            tensors
                .filter(|(_, written)| !written.is_complete())
                .map(|(tensor, _)| tensor.name.as_str())
        })
    }

    /// Writes the index if there are several shards, and makes everything durable.
    ///
    /// # Errors
    /// If tensors are missing, naming the first, or writing fails.
    pub fn finish(mut self) -> Result<WrittenCheckpoint, Error> {
        let tensors = self.places.len();
        if let Some(name) = self.missing().next() {
            let written = tensors - self.missing().count();
            let reason =
                format!("finished after {written} of {tensors} tensors; `{name}` is missing");
            return Err(Error::Order { reason });
        }
        let ranges = self.shards.iter().flat_map(|shard| &shard.plan.ranges);
        let tensor_bytes = ranges.map(|range| range.end - range.start).sum();
        self.begin_files_without_tensors()?;
        self.write_index()?;
        self.sync()?;
        Ok(WrittenCheckpoint {
            files: self.shards.iter().map(|shard| shard.plan.name.clone()).collect(),
            bytes: self.planned_bytes(),
            tensor_bytes,
            tensors,
        })
    }

    /// Makes what is there durable: some of the tensors, and files that have none, if these are wanted.
    pub(super) fn finish_some(mut self, files_without_tensors: bool) -> Result<(), Error> {
        if files_without_tensors {
            self.begin_files_without_tensors()?;
        }
        self.sync()
    }

    fn put_tensor(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        self.check_form(name, tensor.dtype(), tensor.shape())?;
        self.put_range(name, 0, tensor.bytes())
    }

    /// Shard of a tensor, and position in it.
    fn place(&self, name: &str) -> Result<(usize, usize), Error> {
        self.places
            .get(name)
            .copied()
            .ok_or_else(|| Error::Order { reason: format!("`{name}` was not announced") })
    }

    /// Checks that a tensor is of the type and shape that were announced.
    fn check_form(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
        let (s, t) = self.place(name)?;
        let planned = &self.shards[s].plan.tensors[t];
        if planned.dtype == dtype && planned.shape == shape {
            return Ok(());
        }
        let reason = format!(
            "`{name}` was announced as {} {:?} but is {dtype} {shape:?}",
            planned.dtype, planned.shape
        );
        Err(Error::Order { reason })
    }

    /// Shard of a tensor, and position in it, if these bytes of it may be written.
    fn free_range(&self, name: &str, range: &Range<u64>) -> Result<(usize, usize), Error> {
        let (s, t) = self.place(name)?;
        self.check_within(name, range)?;
        if self.shards[s].written[t].meets(range) {
            return Err(put_twice(name));
        }
        Ok((s, t))
    }

    fn check_within(&self, name: &str, range: &Range<u64>) -> Result<(), Error> {
        let (s, t) = self.place(name)?;
        if self.shards[s].written[t].holds(range) {
            return Ok(());
        }
        let bytes = self.bytes_of(s, t);
        let reason = format!("`{name}` was announced with {bytes} bytes and has none at {range:?}");
        Err(Error::Order { reason })
    }

    fn bytes_of(&self, s: usize, t: usize) -> u64 {
        let range = &self.shards[s].plan.ranges[t];
        range.end - range.start
    }

    fn mark(&mut self, s: usize, t: usize, range: &Range<u64>) {
        self.written_bytes += self.shards[s].written[t].add(range);
    }
}

impl Shard {
    fn is_complete(&self) -> bool {
        self.written.iter().all(Written::is_complete)
    }
}

fn put_twice(name: &str) -> Error {
    Error::Order { reason: format!("`{name}` is written already; each tensor comes once") }
}

impl TensorSink for ShardedWriter {
    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), StageError> {
        Ok(self.put_tensor(name, tensor)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_full_disk_says_how_much_is_needed() {
        let shape = vec![1000];
        let plan = vec![PlannedTensor { name: "a".to_owned(), dtype: Dtype::F32, shape }];
        let writer = ShardedWriter::create(Path::new("out"), 1 << 20, plan).expect("plans");
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let message = writer.failed(0, full).to_string();
        let bytes = writer.planned_bytes();
        assert!(bytes > 4000, "{bytes}");
        assert!(message.contains(&format!("all of the {bytes} bytes of weights")), "{message}");
        assert!(message.contains("out/model.safetensors: no storage space"), "{message}");
    }
}
