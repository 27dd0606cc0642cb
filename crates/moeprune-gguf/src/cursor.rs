//! Reading a header from its beginning, in pieces.

use std::{borrow::Cow, fmt};

use moeprune_files::ReadAt;

use crate::Error;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The most bytes that a header may have. The largest known vocabularies take about ten MiB.
const MOST: u64 = 1 << 30;

/// Where in a header something is, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spot<'a> {
    Start,
    /// All keys and values, so many.
    Entries(u64),
    /// All that is said of tensors, so many.
    Tensors(u64),
    /// A key by its number, before its name is known.
    Entry(u64),
    /// The value of a key.
    Value(&'a str),
    /// A tensor by its number, before its name is known.
    Tensor(u64),
    /// What the header says of a tensor.
    Info(&'a str),
}

impl fmt::Display for Spot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => write!(f, "the beginning of the header"),
            Self::Entries(count) => write!(f, "a header of {count} keys"),
            Self::Tensors(count) => write!(f, "a header of {count} tensors"),
            Self::Entry(number) => write!(f, "key {number}"),
            Self::Value(key) => write!(f, "the value of key `{key}`"),
            Self::Tensor(number) => write!(f, "tensor {number}"),
            Self::Info(name) => write!(f, "what is said of tensor `{name}`"),
        }
    }
}

/// A place in a file that moves on as it is read.
#[derive(Debug)]
pub(crate) struct Cursor<'f> {
    file: &'f dyn ReadAt,
    /// Bytes that were read, and where they begin.
    piece: Cow<'f, [u8]>,
    start: u64,
    at: u64,
}

impl<'f> Cursor<'f> {
    pub(crate) fn new(file: &'f dyn ReadAt) -> Self {
        Self { file, piece: Cow::Borrowed(&[]), start: 0, at: 0 }
    }

    /// Bytes that were passed.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes that follow in the file.
    pub(crate) fn left(&self) -> u64 {
        self.file.len() - self.at
    }

    /// Refuses what takes more bytes than follow. `None` is more than can be counted.
    pub(crate) fn expect(&self, needed: Option<u64>, spot: Spot<'_>) -> Result<(), Error> {
        let (left, needed) = (self.left(), needed.unwrap_or(u64::MAX));
        if needed > left {
            return Err(Error::Cut { of: spot.to_string(), needed, left });
        }
        if self.at + needed > MOST {
            return Err(Error::TooLong { of: spot.to_string(), most: MOST });
        }
        Ok(())
    }

    pub(crate) fn u32(&mut self, spot: Spot<'_>) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(spot)?))
    }

    pub(crate) fn u64(&mut self, spot: Spot<'_>) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(spot)?))
    }

    /// A string behind its length.
    pub(crate) fn string(&mut self, spot: Spot<'_>) -> Result<Vec<u8>, Error> {
        let length = self.u64(spot)?;
        let mut bytes = Vec::new();
        self.copy(length, spot, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends the next bytes, after it is sure that they are there.
    pub(crate) fn copy(
        &mut self,
        length: u64,
        spot: Spot<'_>,
        to: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.expect(Some(length), spot)?;
        let mut left = length;
        while left > 0 {
            let step = left.min(PIECE as u64) as usize;
            to.extend_from_slice(self.take(step)?);
            left -= step as u64;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, spot: Spot<'_>) -> Result<[u8; N], Error> {
        self.expect(Some(N as u64), spot)?;
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next bytes, at most a piece, of which it is known that they follow.
    fn take(&mut self, length: usize) -> Result<&[u8], Error> {
        let end = self.start + self.piece.len() as u64;
        if self.at + length as u64 > end {
            let (start, end) = (self.at, self.file.len().min(self.at + PIECE as u64));
            let piece = self.file.read_at(start..end);
            self.piece = piece.map_err(|source| Error::Io { start, end, source })?;
            self.start = start;
        }
        let first = (self.at - self.start) as usize;
        self.at += length as u64;
        Ok(&self.piece[first..first + length])
    }
}
