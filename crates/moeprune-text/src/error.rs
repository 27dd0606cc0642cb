//! Why a text cannot be read.

use std::{io, path::PathBuf};

use crate::{format::Compression, record::Place};

/// A file of text, or a list of such files, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive that ends early, or whose content is damaged.
    #[error(
        "{}: the {compression} archive {}{}: {source}{}",
        path.display(),
        state(source).0,
        place.map_or_else(String::new, |place| format!(" after {place}")),
        state(source).1,
    )]
    Archive {
        /// The file.
        path: PathBuf,
        /// What it is packed with.
        compression: Compression,
        /// The last record, or line, that was read whole.
        place: Option<Place>,
        /// What the decoder said.
        source: io::Error,
    },
    /// A file of a kind that is not read.
    #[error(
        "{}: expected plain text, JSON lines, a JSON array, CSV or Parquet, packed by gzip, zstd or not; \
         got {got}; {remedy}",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        got: String,
        /// What to do with it.
        remedy: String,
    },
    /// A record, or a line of plain text, that is not what it must be.
    #[error("{} {place}: expected {expected}, got {got}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record.
        place: Place,
        /// What it should have been.
        expected: String,
        /// What is wrong with it.
        got: String,
    },
    /// A Parquet file that is damaged, or uses what is not read.
    #[error("{}: this Parquet file cannot be read: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which row.
        reason: String,
    },
    /// A folder without a file that is read.
    #[error("{}: there is no file to read in this folder, which holds {there}", path.display())]
    NothingThere {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        there: String,
    },
    /// A pattern that is wrong or that nothing fits.
    #[error("{pattern}: {reason}; name a file, a folder, or a pattern such as `data/*.jsonl`")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
}

/// What an archive is that a decoder failed on, and what to do.
fn state(source: &io::Error) -> (&'static str, &'static str) {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => ("is cut short", "; download or copy it again"),
        io::ErrorKind::Unsupported => ("is not read", ""),
        _ => ("is damaged", "; download or copy it again"),
    }
}
