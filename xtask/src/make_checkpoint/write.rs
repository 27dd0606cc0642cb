//! Writing the files: chunks made by all threads, each where it belongs.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use moeprune::Progress;
use rayon::prelude::*;

use super::{
    random::NormalTable,
    shards::{Shard, bytes_of},
    weights::Weights,
};

/// About as many bytes are made and written at a time.
const CHUNK: usize = 1 << 20;

const MEGA: u64 = 1_000_000;

/// What the weights depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) seed: u64,
    /// In each layer.
    pub(super) experts: usize,
    /// Only routers and norms are written.
    pub(super) sparse: bool,
}

impl Source {
    /// Bytes that take room on a disk.
    pub(super) fn disk_bytes(self, shards: &[Shard]) -> u64 {
        let headers: u64 = shards.iter().map(|s| s.header.len() as u64).sum();
        headers + self.data_bytes(shards)
    }

    fn data_bytes(self, shards: &[Shard]) -> u64 {
        let tensors = shards.iter().flat_map(|s| &s.tensors).map(|placed| &placed.tensor);
        tensors.filter(|t| !self.sparse || t.is_norm() || t.is_router()).map(bytes_of).sum()
    }
}

/// Some rows of a tensor.
struct Chunk<'a> {
    weights: &'a Weights,
    rows: Range<usize>,
    /// Place of the first row in the file.
    offset: u64,
}

/// Writes all shards into `dir` and makes them durable.
pub(super) fn write(
    dir: &Path,
    shards: &[Shard],
    source: Source,
    progress: &mut (dyn Progress + Send),
) -> Result<()> {
    let table = NormalTable::new();
    let total = source.data_bytes(shards);
    progress.begin("writing", total / MEGA, "MB");
    let (done, progress) = (AtomicU64::new(0), Mutex::new(progress));
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = dir.join(&shard.file);
        let failed = || format!("cannot write {}", path.display());
        let file = File::create_new(&path).with_context(failed)?;
        file.set_len(shard.bytes()).with_context(failed)?;
        file.write_all_at(&shard.header, 0).with_context(failed)?;
        for placed in &shard.tensors {
            let tensor = &placed.tensor;
            if source.sparse && !tensor.is_norm() && !tensor.is_router() {
                continue;
            }
            let weights = Weights::new(tensor, source.seed, source.experts);
            let rows = bytes_of(tensor) as usize / weights.row_bytes();
            chunks(&weights, rows, placed.offset)
                .into_par_iter()
                .try_for_each_init(Vec::new, |buffer, chunk| {
                    chunk.write(&table, &file, buffer)?;
                    let written = buffer.len() as u64;
                    let done = done.fetch_add(written, Ordering::Relaxed) + written;
                    // Whoever finds another thread showing progress has better things to do.
                    if let Ok(mut progress) = progress.try_lock() {
                        progress.advance(done / MEGA, &shard.file);
                    }
                    Ok::<(), std::io::Error>(())
                })
                .with_context(failed)?;
        }
        files.push((path, file));
    }
    let progress = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    progress.end();
    progress.begin("flushing to disk", files.len() as u64, "files");
    for (i, (path, file)) in files.iter().enumerate() {
        file.sync_all().with_context(|| format!("cannot flush {}", path.display()))?;
        progress.advance(i as u64 + 1, "");
    }
    progress.end();
    Ok(())
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
    fn write(&self, table: &NormalTable, file: &File, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        let row_bytes = self.weights.row_bytes();
        buffer.resize(self.rows.len() * row_bytes, 0);
        for (row, out) in self.rows.clone().zip(buffer.chunks_exact_mut(row_bytes)) {
            self.weights.fill(row, table, out);
        }
        file.write_all_at(buffer, self.offset)
    }
}
