//! Files of this machine, mapped or read.

use std::{
    borrow::Cow,
    fs::{File, Metadata},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{ReadAt, identity::Identity, positioned::read_at};

/// A file whose bytes are in memory when they are looked at.
#[derive(Debug)]
pub(super) struct Mapped {
    path: PathBuf,
    map: Mmap,
    bytes: u64,
    identity: Identity,
}

/// A file of which each range is read into its own memory.
#[derive(Debug)]
pub(super) struct Positioned {
    file: File,
    bytes: u64,
}

impl Mapped {
    pub(super) fn new(path: &Path, file: &File, metadata: &Metadata) -> io::Result<Self> {
        let (bytes, identity) = (metadata.len(), Identity::new(path, metadata));
        Ok(Self { path: path.to_owned(), map: map(file)?, bytes, identity })
    }
}

impl ReadAt for Mapped {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let (at, length) = (range.start as usize, self.check(&range)?);
        let bytes = self.map.get(at..at + length).ok_or_else(|| {
            let message = "it became shorter while it was being opened";
            io::Error::new(io::ErrorKind::UnexpectedEof, message)
        })?;
        Ok(Cow::Borrowed(bytes))
    }

    /// Opened again, so that a checkpoint of many files holds no descriptors.
    fn local(&self) -> io::Result<Option<File>> {
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.len() == self.bytes && Identity::new(&self.path, &metadata) == self.identity {
            return Ok(Some(file));
        }
        Err(io::Error::other("it is another file than when it was opened first"))
    }
}

impl Positioned {
    pub(super) fn new(file: File, metadata: &Metadata) -> Self {
        Self { file, bytes: metadata.len() }
    }
}

impl ReadAt for Positioned {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let mut bytes = vec![0; self.check(&range)?];
        read_at(&self.file, &mut bytes, range.start)?;
        Ok(Cow::Owned(bytes))
    }

    fn read_into(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.check(&(at..at.saturating_add(bytes.len() as u64)))?;
        read_at(&self.file, bytes, at)
    }

    fn local(&self) -> io::Result<Option<File>> {
        self.file.try_clone().map(Some)
    }
}

#[allow(unsafe_code, reason = "a memory map cannot be made without")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: The map is read-only and its bytes are only ever read as `u8`, for which every
    // pattern is valid. What the type system cannot rule out is another process changing the file:
    // bytes that change under a reader give wrong weights, and a file that is cut short ends the
    // process with SIGBUS. `Access::MemoryMap` documents this, and `Access::Read` is the way
    // without.
    unsafe { Mmap::map(file) }
}
