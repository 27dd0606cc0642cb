//! Files made byte by byte, right or wrong.

use std::{borrow::Cow, io, ops::Range, path::Path};

use moeprune_files::{Files, MemoryFiles, ReadAt};
use moeprune_gguf::{Error, Header};

/// A file that is appended to.
#[derive(Debug, Clone)]
pub(crate) struct Made(pub(crate) Vec<u8>);

impl Made {
    /// Version 3 with these counts of tensors and keys.
    pub(crate) fn new(tensors: u64, keys: u64) -> Self {
        Self::version(3, tensors, keys)
    }

    pub(crate) fn version(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    pub(crate) fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.u64(text.as_ref().len() as u64).bytes(text.as_ref())
    }

    /// A key with the bytes of a value of the type with this number.
    pub(crate) fn key(self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.text(key).u32(kind).bytes(value)
    }

    /// A tensor with dimensions in ggml's order.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let made = self.text(name).u32(dims.len() as u32);
        let made = dims.iter().fold(made, |made, &dim| made.u64(dim));
        made.u32(kind).u64(offset)
    }

    /// Padding, and so many bytes of tensors.
    pub(crate) fn data(mut self, bytes: usize) -> Self {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }

    pub(crate) fn read(&self) -> Result<Header, Error> {
        read(&self.0)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Header, Error> {
    let mut files = MemoryFiles::new("memory");
    files.insert("file", bytes);
    Header::read(&*files.open(Path::new("file")).unwrap().unwrap())
}

/// A file of this length that begins with these bytes.
#[derive(Debug)]
pub(crate) struct Long(pub(crate) Vec<u8>, pub(crate) u64);

impl ReadAt for Long {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        self.check(&range)?;
        let bytes = range.map(|at| self.0.get(at as usize).copied().unwrap_or(0)).collect();
        Ok(Cow::Owned(bytes))
    }
}

#[track_caller]
pub(crate) fn check_refused<T: std::fmt::Debug>(got: Result<T, Error>, expected: &str) {
    let message = got.expect_err("is refused").to_string();
    assert!(message.contains(expected), "expected `{expected}`\n     got `{message}`");
}
