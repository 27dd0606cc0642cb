//! A file's bytes, unpacked.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::{error::Error, format::Compression, record::Place, zstd::Zstd};

const BUFFER: usize = 1 << 18;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// What zstd's frames that are to be skipped begin with, after a byte from 0x50 to 0x5f.
const ZSTD_SKIPPED: &[u8] = b"\x2a\x4d\x18";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file's bytes without what it is packed with and without a byte order mark.
pub(crate) struct Unpacked {
    path: PathBuf,
    pub(crate) compression: Option<Compression>,
    pub(crate) reader: Box<dyn BufRead>,
}

impl Unpacked {
    /// Opens a file, unpacks it if its first bytes say so, and skips a byte order mark.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(unreadable)?);
        let head = file.fill_buf().map_err(unreadable)?;
        let (compression, reader): (_, Box<dyn BufRead>) = if head.starts_with(GZIP) {
            let decoder = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file));
            (Some(Compression::Gzip), Box::new(decoder))
        } else if is_zstd(head) {
            let decoder = BufReader::with_capacity(BUFFER, Zstd::of(file));
            (Some(Compression::Zstd), Box::new(decoder))
        } else {
            (None, Box::new(file))
        };
        let mut unpacked = Self { path: path.to_owned(), compression, reader };
        match unpacked.reader.fill_buf() {
            Ok(head) if head.starts_with(BYTE_ORDER_MARK) => {
                unpacked.reader.consume(BYTE_ORDER_MARK.len());
            }
            Ok(_) => {}
            Err(source) => return Err(unpacked.unreadable(source, None)),
        }
        Ok(unpacked)
    }

    /// What a failed read means, after `last` was read whole.
    pub(crate) fn unreadable(&self, source: io::Error, last: Option<Place>) -> Error {
        let path = self.path.clone();
        match self.compression {
            Some(compression) if is_of_a_decoder(&source) => {
                Error::Archive { path, compression, place: last, source }
            }
            _ => Error::Read { path, source },
        }
    }

    /// An error of the record at `place`.
    pub(crate) fn wrong(
        &self,
        place: Place,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Error {
        let (expected, got) = (expected.into(), got.into());
        Error::Record { path: self.path.clone(), place, expected, got }
    }
}

fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(ZSTD)
        || matches!(head, [0x50..=0x5f, rest @ ..] if rest.starts_with(ZSTD_SKIPPED))
}

/// The operating system's errors have a number; decoders make theirs up.
fn is_of_a_decoder(source: &io::Error) -> bool {
    source.raw_os_error().is_none()
}
