//! What can be wrong with a GGUF file.

use moeprune_files::StandIn;

/// Why a GGUF file was refused. Which file it is the caller knows, apart from
/// [`Split`](Self::Split), which names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not begin as GGUF files do.
    #[error("no GGUF file: it begins with {got:02x?}, expected `GGUF`")]
    Magic {
        /// Its first bytes, up to four.
        got: Vec<u8>,
    },
    /// The file is not there, but what stands in for it.
    #[error("no GGUF file: it {0}")]
    StandIn(StandIn),
    /// A version of the format that is not read.
    #[error("GGUF version {got}; versions 2 and 3 are read{}", remedy(*got))]
    Version {
        /// The version in the file.
        got: u32,
    },
    /// A file of a big-endian machine.
    #[error(
        "a big-endian GGUF file (version {got}): little-endian files are read; convert it with \
         gguf_convert_endian.py of the Python package gguf"
    )]
    BigEndian {
        /// The version after its bytes were put in order.
        got: u32,
    },
    /// The file ends within the header.
    #[error("{of} needs {needed} more bytes, and the file has {left}; download it again")]
    Cut {
        /// What could not be read.
        of: String,
        /// How many bytes it takes at least.
        needed: u64,
        /// How many there are.
        left: u64,
    },
    /// The header is longer than any that is known.
    #[error("{of} ends beyond {most} bytes, which is more than any header has")]
    TooLong {
        /// Where in the header that is.
        of: String,
        /// The most that is read.
        most: u64,
    },
    /// A key or its value.
    #[error("key `{key}`: {reason}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong, what was expected and what is there.
        reason: String,
    },
    /// What the header says of a tensor.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong, what was expected and what is there.
        reason: String,
    },
    /// A name that is no UTF-8.
    #[error("the name of {of} is no UTF-8: {shown}")]
    Name {
        /// Which one.
        of: String,
        /// The name, with what is wrong in it replaced.
        shown: String,
    },
    /// Bytes of the data that belong to no tensor.
    #[error("bytes {start}..{end} of the file, {place}, belong to no tensor")]
    Hole {
        /// Where they begin.
        start: u64,
        /// Where they end.
        end: u64,
        /// Which tensor is beside them.
        place: String,
    },
    /// One of a set of files does not fit the others.
    #[error("{file}: {reason}")]
    Split {
        /// The file.
        file: String,
        /// What is wrong, what was expected and what is there.
        reason: String,
    },
    /// A file of a set has a header that was refused.
    #[error("{file}: {source}")]
    In {
        /// The file.
        file: String,
        /// Why.
        source: Box<Self>,
    },
    /// The file cannot be read.
    #[error("cannot read bytes {start}..{end}: {source}")]
    Io {
        /// Where they begin.
        start: u64,
        /// Where they end.
        end: u64,
        /// Why.
        source: std::io::Error,
    },
    /// A file of a set cannot be opened.
    #[error(transparent)]
    Files(#[from] moeprune_files::Error),
}

impl Error {
    pub(crate) fn key(key: &str, reason: impl Into<String>) -> Self {
        Self::Key { key: key.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(name: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_owned(), reason: reason.into() }
    }
}

fn remedy(version: u32) -> &'static str {
    match version {
        1 => "; convert the model again with a current llama.cpp",
        _ => "",
    }
}
