//! Weights written as they come, each to the place it was given beforehand.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use moeprune_core::{Dtype, StageError, TensorBytes, TensorSink};

use super::{
    copying::{Piece, copy_bytes},
    durable,
    plan::{Places, PlannedTensor, ShardPlan, other_plan, places, plan_shards},
};
use crate::{
    Checkpoint, Error,
    index::{INDEX_FILE, index_text},
    positioned::write_at,
};

/// Files that are open at a time. A layer lies in few of them.
const MAX_OPEN: usize = 32;

/// Writes tensors announced beforehand, in any order, holding none of them.
///
/// A safetensors file begins with a list of what is in it, so all names, types and shapes are
/// given first, which fixes the place of every tensor. Then each is [put](TensorSink::put) or
/// [copied](Self::copy) there. Tensors that together fit into one shard become
/// `model.safetensors`; otherwise they fill `model-00001-of-0000N.safetensors` and so on, and
/// [`finish`](Self::finish) writes the index. The same tensors give the same bytes, in whatever
/// order they come.
///
/// A file has its header and its final length from the beginning; what was not put yet is a hole.
/// A writer that ended early can be [resumed](Self::resume) by whoever knows which tensors were
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
    /// Whether files of an earlier process may be there.
    resumed: bool,
    /// Whether files were made since the directory was last made durable.
    files_made: bool,
    /// Counts uses of files.
    clock: u64,
    written_bytes: u64,
}

#[derive(Debug)]
struct Shard {
    plan: ShardPlan,
    /// By tensor.
    written: Vec<bool>,
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
    /// Plans the shards: each takes tensors in the given order until the next would bring its data
    /// above `max_shard_bytes`; a larger tensor has a shard of its own. Writes nothing yet; a file
    /// is made when the first of its tensors comes, and must be new.
    ///
    /// # Errors
    /// If there are no tensors, a name is given twice, or the size of a tensor cannot be counted.
    pub fn create(
        dir: &Path,
        max_shard_bytes: u64,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        let plans = plan_shards(max_shard_bytes, tensors)?;
        let places = places(&plans);
        let shard = |plan: ShardPlan| Shard {
            written: vec![false; plan.tensors.len()],
            plan,
            begun: false,
            file: None,
            used: 0,
            dirty: false,
        };
        Ok(Self {
            dir: dir.to_owned(),
            shards: plans.into_iter().map(shard).collect(),
            places,
            resumed: false,
            files_made: false,
            clock: 0,
            written_bytes: 0,
        })
    }

    /// As [`create`](Self::create), on top of what an earlier writer with the same plan left in
    /// `dir`. Every tensor counts as missing until it is put again, or declared to be there with
    /// [`mark_written`](Self::mark_written).
    ///
    /// # Errors
    /// As [`create`](Self::create), and if a weight file in `dir` is not one of this plan: its
    /// name, its length or its header differ.
    pub fn resume(
        dir: &Path,
        max_shard_bytes: u64,
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, Error> {
        let mut writer = Self::create(dir, max_shard_bytes, tensors)?;
        writer.resumed = true;
        for shard in &mut writer.shards {
            shard.begun = shard.plan.is_begun(dir)?;
        }
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let entry = entry.map_err(Error::io("list", dir))?;
            let (name, path) = (entry.file_name(), entry.path());
            let planned = writer.shards.iter().any(|s| name == *s.plan.file);
            let is_weights = path.extension().is_some_and(|e| e == "safetensors");
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
        if !self.shards[s].begun {
            let file = &self.shards[s].plan.file;
            let reason = format!(
                "`{name}` is said to have been written by an earlier process, but there was no \
                 {file}; start anew"
            );
            return Err(Error::Order { reason });
        }
        if !self.shards[s].written[t] {
            self.mark(s, t);
        }
        Ok(())
    }

    /// Copies the stored bytes of a tensor of `source` to the place of `name`, without looking at
    /// them: nothing is decoded, and where the system can copy between files, nothing passes
    /// through the memory of this process.
    ///
    /// # Errors
    /// If `source` has no such tensor, `name` was not announced with its type and shape or was
    /// put before, or copying fails.
    pub fn copy(
        &mut self,
        name: &str,
        source: &Checkpoint,
        source_name: &str,
    ) -> Result<(), Error> {
        self.copy_all(&[(name, source_name)], source, &mut |_| ())
    }

    /// [Copies](Self::copy) many tensors, given as pairs of the name here and the name in
    /// `source`. Tensors that lie side by side in both files are copied as one, at the speed of
    /// copying a file. `progress` is told how many bytes were copied since it was last called.
    ///
    /// # Errors
    /// As [`copy`](Self::copy), and if a name is given twice. Nothing is copied if a pair is
    /// wrong.
    pub fn copy_all(
        &mut self,
        pairs: &[(&str, &str)],
        source: &Checkpoint,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut pieces = Vec::with_capacity(pairs.len());
        for &(name, source_name) in pairs {
            let stored = source.stored(source_name)?;
            let place = self.free_place(name, stored.dtype, &stored.shape)?;
            let to = self.shards[place.0].plan.offsets[place.1];
            pieces.push(Piece { place, to, from: source.offset(stored), bytes: stored.bytes });
        }
        pieces.sort_by_key(|piece| piece.place);
        if let Some(twice) = pieces.windows(2).find(|two| two[0].place == two[1].place) {
            let (s, t) = twice[0].place;
            return Err(put_twice(&self.shards[s].plan.tensors[t].name));
        }
        let mut input: Option<(usize, File)> = None;
        for run in pieces.chunk_by(Piece::runs_on_in) {
            let (from, from_at) = run[0].from;
            let input = match input.take() {
                Some((shard, file)) if shard == from => input.insert((shard, file)),
                _ => input.insert((from, source.shard(from).file()?)),
            };
            let (s, to_at) = (run[0].place.0, run[0].to);
            let bytes = run.iter().map(|piece| piece.bytes).sum();
            let output = self.file(s)?;
            copy_bytes((&input.1, from_at), (output, to_at), bytes, progress).map_err(
                |e| match e.kind() {
                    ErrorKind::UnexpectedEof => Error::Shard {
                        path: source.shard(from).path.clone(),
                        reason: "became shorter while it was being copied".to_owned(),
                    },
                    _ => self.failed(s, e),
                },
            )?;
            for piece in run {
                self.mark(s, piece.place.1);
            }
        }
        Ok(())
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
            durable::sync(&self.dir)?;
            self.files_made = false;
        }
        Ok(())
    }

    /// Bytes that all weight files will have together.
    #[must_use]
    pub fn planned_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.plan.file_bytes()).sum()
    }

    /// Names of the tensors that were not put yet, in the order they were announced.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| {
            let tensors = shard.plan.tensors.iter().zip(&shard.written);
            tensors.filter(|(_, written)| !**written).map(|(tensor, _)| tensor.name.as_str())
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
        let tensor_bytes = self.shards.iter().map(|shard| shard.plan.data_bytes).sum();
        if self.shards.len() > 1 {
            self.write_index(tensor_bytes)?;
        }
        self.sync()?;
        Ok(WrittenCheckpoint {
            files: self.shards.iter().map(|shard| shard.plan.file.clone()).collect(),
            bytes: self.planned_bytes(),
            tensor_bytes,
            tensors,
        })
    }

    fn put_tensor(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        let (s, t) = self.free_place(name, tensor.dtype(), tensor.shape())?;
        let at = self.shards[s].plan.offsets[t];
        let file = self.file(s)?;
        write_at(file, tensor.bytes(), at).map_err(|e| self.failed(s, e))?;
        self.mark(s, t);
        Ok(())
    }

    /// Shard of a tensor, and position in it.
    fn place(&self, name: &str) -> Result<(usize, usize), Error> {
        self.places
            .get(name)
            .copied()
            .ok_or_else(|| Error::Order { reason: format!("`{name}` was not announced") })
    }

    /// As [`place`](Self::place), of a tensor that may be written.
    fn free_place(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<(usize, usize), Error> {
        let (s, t) = self.place(name)?;
        let shard = &self.shards[s];
        let planned = &shard.plan.tensors[t];
        if planned.dtype != dtype || planned.shape != shape {
            let reason = format!(
                "`{name}` was announced as {} {:?} but is {dtype} {shape:?}",
                planned.dtype, planned.shape
            );
            return Err(Error::Order { reason });
        }
        if shard.written[t] {
            return Err(put_twice(name));
        }
        Ok((s, t))
    }

    fn mark(&mut self, s: usize, t: usize) {
        let shard = &mut self.shards[s];
        shard.written[t] = true;
        self.written_bytes += shard.plan.tensor_bytes(t);
    }

    /// The file of a shard for writing to.
    fn file(&mut self, s: usize) -> Result<&File, Error> {
        if self.shards[s].file.is_none() {
            self.close_if_many()?;
            let file = if self.shards[s].begun {
                let path = self.dir.join(&self.shards[s].plan.file);
                File::options().write(true).open(&path).map_err(Error::io("open", &path))?
            } else {
                self.begin_file(s)?
            };
            self.shards[s].file = Some(file);
        }
        self.clock += 1;
        let shard = &mut self.shards[s];
        (shard.used, shard.dirty) = (self.clock, true);
        let Some(file) = &shard.file else { unreachable!("was opened above") };
        Ok(file)
    }

    /// Makes a file with its header and its final length, under another name first: a file that
    /// bears its name can be resumed, whenever the process or the machine stopped.
    fn begin_file(&mut self, s: usize) -> Result<File, Error> {
        let plan = &self.shards[s].plan;
        let path = self.dir.join(&plan.file);
        if path.symlink_metadata().is_ok() {
            return Err(Error::io("create", &path)(ErrorKind::AlreadyExists.into()));
        }
        let unnamed = self.dir.join(format!(".{}.new", plan.file));
        let mut file = File::create(&unnamed).map_err(Error::io("create", &unnamed))?;
        let begun = file
            .write_all(&plan.header)
            .and_then(|()| file.set_len(plan.file_bytes()))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&unnamed, &path));
        begun.map_err(|e| self.failed(s, e))?;
        self.shards[s].begun = true;
        self.files_made = true;
        Ok(file)
    }

    /// Closes the file used longest ago if there are too many. Files are made durable before:
    /// once closed, nobody would be told that the system failed to write them.
    fn close_if_many(&mut self) -> Result<(), Error> {
        let open = self.shards.iter().enumerate().filter(|(_, shard)| shard.file.is_some());
        if open.clone().count() >= MAX_OPEN
            && let Some((oldest, _)) = open.min_by_key(|(_, shard)| shard.used)
        {
            self.sync_shard(oldest)?;
            self.shards[oldest].file = None;
        }
        Ok(())
    }

    fn sync_shard(&mut self, s: usize) -> Result<(), Error> {
        if let Some(file) = &self.shards[s].file
            && self.shards[s].dirty
        {
            file.sync_data().map_err(|e| self.failed(s, e))?;
            self.shards[s].dirty = false;
        }
        Ok(())
    }

    fn write_index(&mut self, tensor_bytes: u64) -> Result<(), Error> {
        let mut weight_map = BTreeMap::new();
        for Shard { plan, .. } in &self.shards {
            weight_map.extend(plan.tensors.iter().map(|t| (t.name.as_str(), plan.file.as_str())));
        }
        let text = index_text(tensor_bytes, &weight_map);
        let path = self.dir.join(INDEX_FILE);
        if !self.resumed && path.symlink_metadata().is_ok() {
            return Err(Error::io("create", &path)(ErrorKind::AlreadyExists.into()));
        }
        let unnamed = self.dir.join(format!(".{INDEX_FILE}.new"));
        durable::write_and_rename(text.as_bytes(), &unnamed, &path)?;
        self.files_made = true;
        Ok(())
    }

    fn failed(&self, s: usize, e: std::io::Error) -> Error {
        let path = self.dir.join(&self.shards[s].plan.file);
        let action = match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                format!(
                    "write all of the {} bytes of weights ({} of them are written); make room for",
                    self.planned_bytes(),
                    self.written_bytes
                )
            }
            _ => "write".to_owned(),
        };
        Error::io(action, path)(e)
    }
}

impl Shard {
    fn is_complete(&self) -> bool {
        self.written.iter().all(|written| *written)
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
