//! A checkpoint of headers alone.

use std::{
    borrow::Cow,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use moeprune_files::{Error, FileEntry, FileIdentity, FileKind, Files, ReadAt};

use crate::shards::OutputShard;

/// The files of a checkpoint that has not been written: texts and headers are there, and weights read
/// as zeros.
#[derive(Debug)]
pub(crate) struct Headers {
    place: PathBuf,
    files: Vec<HeaderFile>,
}

#[derive(Debug, Clone)]
struct HeaderFile {
    name: String,
    start: Vec<u8>,
    len: u64,
}

impl Headers {
    pub(crate) fn new(place: &str, config: String, shards: &[OutputShard]) -> Self {
        let of_shard = |shard: &OutputShard| HeaderFile {
            name: shard.file.clone(),
            start: shard.header.clone(),
            len: shard.bytes(),
        };
        let mut files: Vec<HeaderFile> = shards.iter().map(of_shard).collect();
        let text = |name: &str, text: String| HeaderFile {
            name: name.to_owned(),
            len: text.len() as u64,
            start: text.into_bytes(),
        };
        files.push(text("config.json", config));
        files.extend(crate::shards::index(shards).map(|index| text(crate::shards::INDEX, index)));
        Self { place: place.into(), files }
    }

    fn file(&self, name: &Path) -> Option<&HeaderFile> {
        self.files.iter().find(|file| Path::new(&file.name) == name)
    }
}

impl Files for Headers {
    fn place(&self) -> &Path {
        &self.place
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        Ok(self.file(name).map(|file| Box::new(file.clone()) as Box<dyn ReadAt>))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        let entry =
            |file: &HeaderFile| FileEntry { name: (&file.name).into(), kind: FileKind::File };
        let top = folder.as_os_str().is_empty();
        Ok(if top { self.files.iter().map(entry).collect() } else { Vec::new() })
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        let bytes = self.file(name).map_or(0, |file| file.len);
        Ok(FileIdentity { name: name.to_string_lossy().into_owned(), bytes, modified: 0 })
    }
}

impl ReadAt for HeaderFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let length = self.check(&range)?;
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(self.start.len());
        let rest = &self.start[start..];
        if let Some(bytes) = rest.get(..length) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = rest.to_vec();
        bytes.resize(length, 0);
        Ok(Cow::Owned(bytes))
    }
}
