//! Stored bytes that go from a checkpoint into files that are written.

use std::{fs::File, io, ops::Range};

use moeprune_files::{copy_bytes, write_at};

use crate::{Checkpoint, Error};

/// Bytes of a stored tensor, and where they go: what [`ShardedWriter::copy_ranges`] copies.
///
/// [`ShardedWriter::copy_ranges`]: crate::ShardedWriter::copy_ranges
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct RangeCopy<'a> {
    /// Name of the tensor that is written.
    pub name: &'a str,
    /// Where its bytes begin that are written.
    pub at: u64,
    /// Name of the source's tensor.
    pub source: &'a str,
    /// Which bytes of that tensor.
    pub range: Range<u64>,
}

/// Bytes that lie in one piece here and there.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// File and position of the tensor in it.
    pub(super) place: (usize, usize),
    /// Which of the tensor's bytes.
    pub(super) written: Range<u64>,
    /// Where they begin in that file.
    pub(super) to: u64,
    /// File of the source, and where they begin in it.
    pub(super) from: (usize, u64),
}

impl Piece {
    pub(super) fn bytes(&self) -> u64 {
        self.written.end - self.written.start
    }

    /// Whether `next` follows in both files.
    pub(super) fn runs_on_in(&self, next: &Self) -> bool {
        self.place.0 == next.place.0
            && self.to + self.bytes() == next.to
            && self.from.0 == next.from.0
            && self.from.1 + self.bytes() == next.from.1
    }
}

/// A weight file of the source, for copying from.
pub(super) struct Input<'a> {
    source: &'a Checkpoint,
    /// Which file.
    pub(super) file: usize,
    /// The same on this machine, if it is there.
    local: Option<File>,
}

/// What a copy failed at.
pub(super) enum CopyError {
    Reading(Error),
    /// Reading or writing.
    Copying(io::Error),
}

/// Bytes that are in memory at a time where the source is not on this machine.
const STEP: u64 = 16 << 20;

impl<'a> Input<'a> {
    pub(super) fn open(source: &'a Checkpoint, file: usize) -> Result<Self, Error> {
        Ok(Self { source, file, local: source.weight_file(file).local()? })
    }

    /// Copies bytes from a place of this file to a place of another.
    pub(super) fn copy_to(
        &self,
        from_at: u64,
        (to, to_at): (&File, u64),
        bytes: u64,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), CopyError> {
        if let Some(local) = &self.local {
            return copy_bytes((local, from_at), (to, to_at), bytes, copied)
                .map_err(CopyError::Copying);
        }
        let mut done = 0;
        while done < bytes {
            let step = STEP.min(bytes - done);
            let range = from_at + done..from_at + done + step;
            let read = self.source.weight_file(self.file).read(range);
            let read = read.map_err(CopyError::Reading)?;
            write_at(to, &read, to_at + done).map_err(CopyError::Copying)?;
            copied(step);
            done += step;
        }
        Ok(())
    }
}
