//! One safetensors file of a checkpoint, open for reading.

use std::{
    borrow::Cow,
    fs::{File, Metadata},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{
    Error,
    header::{HeaderTensor, read_header},
    positioned::read_at,
};

/// How the data of a checkpoint reaches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Access {
    /// The files are mapped: nothing is copied and the system caches what was read. A file that
    /// another program shortens while it is mapped ends this process with a bus error (SIGBUS) at
    /// the next access to the missing part; no program can turn that into an error message.
    #[default]
    MemoryMap,
    /// Each tensor is read into memory of its own. A file that is shortened meanwhile is an
    /// ordinary error. For network file systems, and where the memory that is mapped would count
    /// against a limit.
    Read,
}

/// An open file whose header was read and checked.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    pub(crate) data_bytes: u64,
    data_start: u64,
    data: Data,
    identity: Identity,
}

/// What tells a file from another that took its place.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    bytes: u64,
    /// Device and inode, where there are such.
    inode: Option<(u64, u64)>,
}

#[derive(Debug)]
enum Data {
    Mapped(Mmap),
    File(File),
}

impl Shard {
    /// Opens a regular file and reads its header, nothing else.
    pub(crate) fn open(
        path: &Path,
        name: &str,
        access: Access,
    ) -> Result<(Self, Vec<HeaderTensor>), Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("inspect", path))?;
        let (file_bytes, identity) = (metadata.len(), Identity::of(&metadata));
        let (data_start, tensors) = read_header(&mut file, file_bytes, path)?;
        let data = match access {
            Access::MemoryMap => Data::Mapped(map(&file).map_err(Error::io("map", path))?),
            Access::Read => Data::File(file),
        };
        let (name, path) = (name.to_owned(), path.to_owned());
        let data_bytes = file_bytes - data_start;
        Ok((Self { name, path, file_bytes, data_bytes, data_start, data, identity }, tensors))
    }

    /// Where a range of the data begins in the file.
    pub(crate) fn offset(&self, range: &Range<u64>) -> u64 {
        self.data_start + range.start
    }

    /// The file for reading at given places. A mapped file is opened again, so that a checkpoint
    /// of many shards holds no descriptors.
    pub(crate) fn file(&self) -> Result<File, Error> {
        if let Data::File(file) = &self.data {
            return file.try_clone().map_err(Error::io("open", &self.path));
        }
        let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        let metadata = file.metadata().map_err(Error::io("inspect", &self.path))?;
        if Identity::of(&metadata) == self.identity {
            return Ok(file);
        }
        let reason = "is another file than when the checkpoint was opened".to_owned();
        Err(Error::Shard { path: self.path.clone(), reason })
    }

    /// Bytes of a range of the data.
    pub(crate) fn bytes(&self, range: &Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let at = self.data_start + range.start;
        let length = (range.end - range.start) as usize;
        match &self.data {
            Data::Mapped(map) => {
                let at = at as usize;
                map.get(at..at + length).map(Cow::Borrowed).ok_or_else(|| Error::Shard {
                    path: self.path.clone(),
                    reason: "became shorter while it was being opened".to_owned(),
                })
            }
            Data::File(file) => {
                let mut bytes = vec![0; length];
                read_at(file, &mut bytes, at).map_err(Error::io("read", &self.path))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let inode = None;
        Self { bytes: metadata.len(), inode }
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
