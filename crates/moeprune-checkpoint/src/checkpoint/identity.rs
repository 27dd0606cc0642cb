//! What tells that the files of a checkpoint changed.

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use moeprune_files::{FileIdentity, ReadAt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CONFIG_FILE, Checkpoint};
use crate::Error;

/// What a file of a model holds, by hashes: copies of it elsewhere have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored and compared by the caller")]
pub struct ContentHash {
    /// Name among the files of the model.
    pub name: String,
    /// SHA-256 of its length, its header, and blocks whose places depend on the length alone.
    pub sampled: String,
    /// SHA-256 of all of it, if that was asked for or costs next to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

/// A sampled block.
const BLOCK: u64 = 64 << 10;

/// How many of them there are, the first at the beginning of the file and the last at its end.
const BLOCKS: u64 = 16;

/// So much of a header is hashed: it names all tensors of a file with tens of thousands.
const LONGEST_HEADER: u64 = 4 << 20;

/// A model of so few bytes is hashed whole in any case.
const SMALL_MODEL: u64 = 64 << 20;

/// Files that are hashed at a time: on a network each read waits.
const AT_ONCE: usize = 8;

impl Checkpoint {
    /// What identifies the files of this checkpoint at this moment: `config.json` and the index, if
    /// there are such, and the weight files in the order of their names.
    ///
    /// Files that are equal to earlier ones in all of this are taken to be the same. A file that
    /// was replaced by one of the same length and time does not show; [`content_hashes`](Self::content_hashes) may.
    ///
    /// # Errors
    /// If a file is not there any more.
    pub fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        let files = self.files();
        let identity = |name| files.identity(Path::new(name)).map_err(Error::in_files(files));
        self.identifying().map(identity).collect()
    }

    /// Has [`content_hashes`](Self::content_hashes) read every byte, which takes as long as reading the model.
    #[must_use]
    pub fn with_whole_hashes(mut self, whole: bool) -> Self {
        self.directory.whole_hashes = whole;
        self
    }

    /// Hashes of the same files. Some blocks of each are read, 17 MiB of sixteen files
    /// altogether: two files of which these agree are of one length and one header, and differ in no sampled
    /// block, so that a copy that broke off or another model shows, and a change of single weights most often
    /// does not. Of models of up to 64 MiB, and [if that was asked for](Self::with_whole_hashes), every byte
    /// counts.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn content_hashes(&self) -> Result<Vec<ContentHash>, Error> {
        let whole = self.directory.whole_hashes || self.weight_bytes() <= SMALL_MODEL;
        let names: Vec<&str> = self.identifying().collect();
        let next = AtomicUsize::new(0);
        let hash_some = || -> Result<Vec<(usize, ContentHash)>, Error> {
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(&name) = names.get(i) else { return Ok(done) };
                done.push((i, self.content_hash(name, whole)?));
            }
        };
        let mut hashes = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..AT_ONCE.min(names.len())).map(|_| scope.spawn(hash_some)).collect();
            let mut all = Vec::new();
            for thread in threads {
                match thread.join() {
                    Ok(hashes) => all.extend(hashes?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, Error>(all)
        })?;
        hashes.sort_by_key(|(i, _)| *i);
        Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
    }

    fn identifying(&self) -> impl Iterator<Item = &str> {
        let config = (!self.describes_itself()).then_some(CONFIG_FILE);
        config.into_iter().chain(self.index_file()).chain(self.shard_files())
    }

    fn content_hash(&self, name: &str, whole: bool) -> Result<ContentHash, Error> {
        let files = self.files();
        let failed = |e| Error::io("read", files.path_of(Path::new(name)))(e);
        let file = files.open(Path::new(name)).map_err(Error::in_files(files))?;
        let file = file.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let header = self.layout.files.iter().find(|file| file.name() == name);
        let header = header.map_or(LONGEST_HEADER, |file| file.len() - file.data_bytes());
        let mut sampled = Sha256::new();
        sampled.update(file.len().to_le_bytes());
        for range in samples(file.len(), header.min(LONGEST_HEADER)) {
            update(&mut sampled, &*file, range).map_err(failed)?;
        }
        let mut hash = ContentHash {
            name: name.to_owned(),
            sampled: format!("{:x}", sampled.finalize()),
            whole: None,
        };
        if whole {
            let mut all = Sha256::new();
            update(&mut all, &*file, 0..file.len()).map_err(failed)?;
            hash.whole = Some(format!("{:x}", all.finalize()));
        }
        Ok(hash)
    }
}

fn update(hash: &mut Sha256, file: &dyn ReadAt, range: Range<u64>) -> std::io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + (1 << 20));
        hash.update(&*file.read_at(at..end)?);
        at = end;
    }
    Ok(())
}

/// What is read of a file: its header, and blocks over all of it; all of a file that is hardly longer.
fn samples(length: u64, header: u64) -> Vec<Range<u64>> {
    let header = header.min(length);
    if length <= header + BLOCKS * BLOCK {
        return std::iter::once(0..length).collect();
    }
    let last = length - BLOCK;
    // In this order no product is too large for any file.
    let block = |i: u64| last / (BLOCKS - 1) * i + last % (BLOCKS - 1) * i / (BLOCKS - 1);
    let blocks = (0..BLOCKS).map(|i| block(i)..block(i) + BLOCK);
    std::iter::once(0..header).chain(blocks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_in_the_file() {
        let check = |length: u64, header: u64| {
            let samples = samples(length, header);
            assert!(samples.iter().all(|range| range.start <= range.end && range.end <= length));
            assert_eq!(samples[0].start, 0);
            assert_eq!(samples.iter().map(|range| range.end).max(), Some(length));
            let read: u64 = samples.iter().map(|range| range.end - range.start).sum();
            assert!(read <= header.min(length) + BLOCKS * BLOCK, "{length} {header}: {read}");
            samples.len()
        };
        for length in [0, 1, BLOCK, BLOCKS * BLOCK] {
            assert_eq!(check(length, 0), 1);
            assert_eq!(check(length, u64::MAX), 1);
        }
        for length in [BLOCKS * BLOCK + 1, 5 << 30, 1 << 50, u64::MAX / 4, u64::MAX] {
            assert_eq!(check(length, 0), 17);
            assert!(check(length, 1 << 20) <= 17);
        }
    }
}
