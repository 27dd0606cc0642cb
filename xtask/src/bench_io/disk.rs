//! What a disk does with reads and writes of one size, a number of them at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// Bytes of a read or write.
const BLOCK: usize = 8 << 20;

/// What memory and places are multiples of.
const PAGE: usize = 4096;

/// How many at a time.
pub(super) const DEPTHS: [usize; 4] = [1, 2, 4, 8];

/// Whether the system's cache takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    Past,
    Through,
}

/// Reads and writes to time: blocks of the first files, of which there may be none, and of one that is written.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) read: &'a [PathBuf],
    pub(super) write: Option<&'a Path>,
    /// Bytes to write, if nothing is read.
    pub(super) bytes: u64,
    pub(super) depth: usize,
    pub(super) cache: Cache,
}

/// Blocks by file, place and length.
type Blocks = Vec<(usize, u64, usize)>;

impl Work<'_> {
    /// Seconds until all is read or durable. What is written is removed.
    pub(super) fn time(&self) -> Result<f64> {
        let blocks = self.blocks()?;
        let began = Instant::now();
        let bytes = blocks.iter().map(|(.., length)| *length as u64).sum();
        let written = self.write.map(|path| self.create(path, bytes)).transpose()?;
        self.run(&blocks, written.is_some())?;
        if let Some(file) = &written {
            file.sync_all()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        if let Some(path) = self.write {
            fs::remove_file(path)?;
        }
        Ok(seconds)
    }

    fn blocks(&self) -> Result<Blocks> {
        let mut lengths = Vec::new();
        for path in self.read {
            lengths.push(fs::metadata(path)?.len());
        }
        if lengths.is_empty() {
            lengths.push(self.bytes);
        }
        let of_file = |(file, length): (usize, u64)| {
            let pages = length / PAGE as u64 * PAGE as u64;
            let block = move |at: u64| (file, at, (pages - at).min(BLOCK as u64) as usize);
            (0..pages).step_by(BLOCK).map(block)
        };
        Ok(lengths.into_iter().enumerate().flat_map(of_file).collect())
    }

    /// A file with room for all, as one has it that is written over.
    fn create(&self, path: &Path, bytes: u64) -> Result<File> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        if self.cache == Cache::Past {
            // Not every file system can, and then room is found while writing.
            let _ = fallocate(&file, FallocateFlags::empty(), 0, bytes);
        }
        Ok(file)
    }

    fn run(&self, blocks: &Blocks, writes: bool) -> Result<()> {
        let mut places = Vec::with_capacity(blocks.len());
        let mut end = 0;
        for (.., length) in blocks {
            places.push(end);
            end += *length as u64;
        }
        let next = AtomicUsize::new(0);
        let lane = || -> Result<()> {
            let mut memory = vec![0; BLOCK + PAGE];
            let begin = memory.as_ptr().align_offset(PAGE).min(PAGE);
            let memory = &mut memory[begin..][..BLOCK];
            fill(memory);
            let inputs = self.read.iter().map(|path| self.open(path, false));
            let inputs = inputs.collect::<io::Result<Vec<File>>>()?;
            let output = self.write.filter(|_| writes);
            let output = output.map(|path| self.open(path, true)).transpose()?;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(&(file, at, length)) = blocks.get(n) else { return Ok(()) };
                if let Some(input) = inputs.get(file) {
                    input.read_exact_at(&mut memory[..length], at)?;
                }
                if let Some(output) = &output {
                    output.write_all_at(&memory[..length], places[n])?;
                }
            }
        };
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..self.depth).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().try_for_each(|lane| match lane.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(!write).write(write);
        if self.cache == Cache::Past {
            let direct =
                options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
            match direct {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {} // older memory file systems
                done_or_failed => return done_or_failed,
            }
        }
        options.open(path)
    }
}

/// Bytes that no disk makes smaller.
fn fill(memory: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for bytes in memory.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&state.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, out) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("out"));
        fs::write(&a, vec![1; BLOCK + 3 * PAGE + 7]).unwrap();
        fs::write(&b, vec![2; PAGE]).unwrap();
        let read = [a, b];
        for cache in [Cache::Past, Cache::Through] {
            let work = Work { read: &read, write: Some(&out), bytes: 0, depth: 3, cache };
            let blocks = work.blocks().unwrap();
            let pages = PAGE as u64;
            let expected = [(0, 0, BLOCK), (0, BLOCK as u64, 3 * PAGE), (1, 0, PAGE)];
            assert_eq!(blocks, expected);
            drop(work.create(&out, 0).unwrap());
            work.run(&blocks, true).unwrap();
            let written = fs::read(&out).unwrap();
            assert_eq!(written.len() as u64, BLOCK as u64 + 4 * pages);
            assert_eq!((written[0], written[BLOCK + 3 * PAGE]), (1, 2));
            assert!(work.time().unwrap() > 0.0);
            assert!(!out.exists());
        }
    }
}
