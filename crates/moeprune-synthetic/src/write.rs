//! Writing the files: chunks made by all threads, each where it belongs.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;

use crate::{
    Error,
    random::NormalTable,
    shards::{OutputShard, PlacedTensor},
    source::Source,
    weights::Weights,
};

/// About as many bytes are made and written at a time.
const CHUNK: usize = 1 << 20;

/// How far [`write_checkpoint`](crate::write_checkpoint) has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two steps there are")]
pub enum Step<'a> {
    /// Weights are made and written.
    Writing {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
        /// The file being written.
        file: &'a str,
    },
    /// Files are made durable.
    Flushing {
        /// Files done.
        done: usize,
        /// Files in all.
        total: usize,
    },
}

/// Some rows of a tensor.
struct Chunk<'a> {
    weights: &'a Weights,
    rows: Range<usize>,
    /// Place of the first row in the file.
    offset: u64,
}

/// Writes all shards into `dir` and makes them durable.
pub(crate) fn write(
    dir: &Path,
    shards: &[OutputShard],
    source: Source,
    progress: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<(), Error> {
    let total = source.data_bytes(shards);
    let work = Work {
        source,
        total,
        table: NormalTable::new(),
        done: AtomicU64::new(0),
        progress: Mutex::new(progress),
    };
    work.say(|| Step::Writing { done: 0, total, file: "" });
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = dir.join(&shard.file);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        work.shard(shard, &file).map_err(Error::io("write", &path))?;
        files.push((path, file));
    }
    let progress = work.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress(Step::Writing { done: work.done.into_inner(), total, file: "" });
    for (done, (path, file)) in files.iter().enumerate() {
        progress(Step::Flushing { done, total: files.len() });
        file.sync_all().map_err(Error::io("flush", path))?;
    }
    progress(Step::Flushing { done: files.len(), total: files.len() });
    Ok(())
}

struct Work<'a> {
    source: Source,
    total: u64,
    table: NormalTable,
    done: AtomicU64,
    progress: Mutex<&'a mut (dyn FnMut(Step<'_>) + Send)>,
}

impl Work<'_> {
    fn shard(&self, shard: &OutputShard, file: &File) -> io::Result<()> {
        file.set_len(shard.bytes())?;
        file.write_all_at(&shard.header, 0)?;
        shard.tensors.iter().try_for_each(|placed| self.tensor(placed, &shard.file, file))
    }

    fn tensor(&self, placed: &PlacedTensor, name: &str, file: &File) -> io::Result<()> {
        let tensor = &placed.tensor;
        if self.source.sparse && !tensor.is_vector() && !tensor.is_router() {
            return Ok(());
        }
        let weights = Weights::new(tensor, self.source);
        let rows = tensor.named.bytes() as usize / weights.row_bytes();
        chunks(&weights, rows, placed.offset).into_par_iter().try_for_each_init(
            Vec::new,
            |buffer, chunk| {
                chunk.write(&self.table, file, buffer)?;
                let written = buffer.len() as u64;
                let done = self.done.fetch_add(written, Ordering::Relaxed) + written;
                self.say(|| Step::Writing { done, total: self.total, file: name });
                Ok(())
            },
        )
    }

    /// Does nothing while another thread reports progress.
    fn say<'s>(&self, step: impl FnOnce() -> Step<'s>) {
        if let Ok(mut progress) = self.progress.try_lock() {
            progress(step());
        }
    }
}

fn chunks(weights: &Weights, rows: usize, offset: u64) -> Vec<Chunk<'_>> {
    let each = (CHUNK / weights.row_bytes()).max(1);
    let chunk = |first: usize| Chunk {
        weights,
        rows: first..rows.min(first + each),
        offset: offset + (first * weights.row_bytes()) as u64,
    };
    (0..rows).step_by(each).map(chunk).collect()
}

impl Chunk<'_> {
    fn write(&self, table: &NormalTable, file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
        let row_bytes = self.weights.row_bytes();
        buffer.resize(self.rows.len() * row_bytes, 0);
        for (row, out) in self.rows.clone().zip(buffer.chunks_exact_mut(row_bytes)) {
            self.weights.fill(row, table, out);
        }
        file.write_all_at(buffer, self.offset)
    }
}
