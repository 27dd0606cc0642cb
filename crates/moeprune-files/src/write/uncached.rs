//! Writing past the system's cache.

use std::{fs::File, io};

use crate::positioned::write_at;

/// What the system asks places in files and in memory to be multiples of: its page, and the block
/// of most disks.
pub(super) const PAGE: usize = 4 << 10;

/// Memory for a part of a file.
pub(super) struct Block(Vec<u8>);

impl Block {
    /// For up to `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self(vec![0; capacity + 2 * PAGE])
    }

    /// Memory for `length` bytes that belong at `at` in a file, as far from a page's beginning as
    /// there.
    pub(super) fn at(&mut self, at: u64, length: usize) -> &mut [u8] {
        let begin = self.0.as_ptr().align_offset(PAGE).min(PAGE) + (at % PAGE as u64) as usize;
        &mut self.0[begin..][..length]
    }
}

/// A file whose pages are written straight from this process's memory where the system can.
///
/// What is written here must be on the disk in the end, is far longer than what memory could
/// keep, and is not read again soon: a copy in the system's cache costs time and pushes out what
/// others would read.
pub(super) struct Uncached<'a> {
    file: &'a File,
    works: bool,
}

impl<'a> Uncached<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, works: cfg!(target_os = "linux") }
    }

    /// Writes bytes that are in memory as [`Block::at`] places them.
    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let head = (at.next_multiple_of(PAGE as u64) - at) as usize;
        let (head, rest) = bytes.split_at(head.min(bytes.len()));
        let (pages, tail) = rest.split_at(rest.len() / PAGE * PAGE);
        if !self.works || pages.is_empty() {
            return write_at(self.file, bytes, at);
        }
        let pages_at = at + head.len() as u64;
        write_at(self.file, head, at)?;
        self.write_pages(pages, pages_at)?;
        write_at(self.file, tail, pages_at + pages.len() as u64)
    }

    fn write_pages(&mut self, pages: &[u8], at: u64) -> io::Result<()> {
        if set_uncached(self.file, true).is_ok() {
            let written = write_at(self.file, pages, at);
            set_uncached(self.file, false)?;
            match written {
                Err(e) if is_refused(&e) => {}
                done_or_failed => return done_or_failed,
            }
        }
        self.works = false;
        write_at(self.file, pages, at)
    }
}

/// Whether a file system cannot write past the cache, which some say when they are written to.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(target_os = "linux")]
fn set_uncached(file: &File, on: bool) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_uncached(_file: &File, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Writes pieces that begin at the given places, each up to the next, over a file of ones.
    #[track_caller]
    fn check(folder: &Path, places: &[u64]) {
        let dir = tempfile::tempdir_in(folder).expect("temporary directory");
        let path = dir.path().join("file");
        let end = *places.last().expect("an end");
        fs::write(&path, vec![1; end as usize + 5000]).expect("writes");
        let file = File::options().write(true).open(&path).expect("opens");
        let mut uncached = Uncached::new(&file);
        let byte = |at: u64| (at % 251) as u8;
        for piece in places.windows(2) {
            let length = (piece[1] - piece[0]) as usize;
            let mut block = Block::new(length);
            let bytes = block.at(piece[0], length);
            for (byte_of, at) in bytes.iter_mut().zip(piece[0]..) {
                *byte_of = byte(at);
            }
            uncached.write_at(bytes, piece[0]).expect("writes");
        }
        let written = fs::read(&path).expect("reads");
        let expected = (0..end + 5000)
            .map(|at| if (places[0]..end).contains(&at) { byte(at) } else { 1 })
            .collect::<Vec<_>>();
        assert!(written == expected, "{places:?} in {}", folder.display());
    }

    #[test]
    fn pieces_of_any_alignment() {
        let places: [&[u64]; 8] = [
            &[0, 4096],
            &[0, 4095, 4097],
            &[3, 5, 8192, 8193],
            &[10, 4096, 12_288],
            &[2048, 10_240, 18_432, 26_624],
            &[4095, 4096, 4097],
            &[1, 100_000, 200_001],
            &[8192, 8192],
        ];
        // The second has no disk below it.
        for folder in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
            for places in places.iter().filter(|_| folder.is_dir()) {
                check(folder, places);
            }
        }
    }
}
