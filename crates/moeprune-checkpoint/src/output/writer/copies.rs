//! Stored bytes that go from a checkpoint into files that are written.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
};

use moeprune_files::{copy_bytes, write_at};

use super::{ShardedWriter, put_twice};
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

impl ShardedWriter {
    /// Copies the stored bytes of a tensor of `source` to the place of `name`, without looking at
    /// them: nothing is decoded, and where the system can copy between files, nothing passes
    /// through the memory of this process.
    ///
    /// # Errors
    /// If `source` has no such tensor, `name` was not announced with its type and shape or was
    /// put before, or copying fails.
    pub fn copy(
        &mut self,
        name: &str,
        source: &Checkpoint,
        source_name: &str,
    ) -> Result<(), Error> {
        self.copy_all(&[(name, source_name)], source, &mut |_| ())
    }

    /// [Copies](Self::copy) many tensors, given as pairs of the name here and the name in
    /// `from`. Tensors that lie side by side in both files are copied as one, at the speed of
    /// copying a file. `progress` is called with how many bytes were copied since it was last
    /// called.
    ///
    /// # Errors
    /// As [`copy`](Self::copy), and if a name is given twice. Nothing is copied if a pair is
    /// wrong.
    pub fn copy_all(
        &mut self,
        pairs: &[(&str, &str)],
        from: &Checkpoint,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut copies = Vec::with_capacity(pairs.len());
        for &(name, source) in pairs {
            let stored = from.stored(source)?;
            self.check_form(name, stored.dtype, &stored.shape)?;
            copies.push(RangeCopy { name, at: 0, source, range: 0..stored.bytes });
        }
        self.copy_ranges(&copies, from, progress)
    }

    /// [Copies](Self::copy) pieces of tensors, without looking at them: experts from a tensor that
    /// holds all of a layer into another such tensor, say. Pieces that lie side by side in both
    /// files are copied as one. `progress` is called with how many bytes were copied since it was
    /// last called.
    ///
    /// # Errors
    /// If `from` or this writer has no such tensor, or the tensor no such bytes, or some were put
    /// before or are given twice; then nothing is copied. Also if copying fails.
    pub fn copy_ranges(
        &mut self,
        copies: &[RangeCopy<'_>],
        from: &Checkpoint,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let pieces = self.pieces(copies, from)?;
        let mut input: Option<Input<'_>> = None;
        for run in pieces.chunk_by(Piece::runs_on_in) {
            let (file, from_at) = run[0].from;
            let input = match input.take() {
                Some(open) if open.file == file => input.insert(open),
                _ => input.insert(Input::open(from, file)?),
            };
            let (s, to_at) = (run[0].place.0, run[0].to);
            let bytes = run.iter().map(Piece::bytes).sum();
            let output = self.file(s)?;
            input.copy_to(from_at, (output, to_at), bytes, progress).map_err(|e| match e {
                CopyError::Reading(e) => e,
                CopyError::Copying(e) if e.kind() == ErrorKind::UnexpectedEof => Error::Shard {
                    path: from.weight_file(file).path().to_owned(),
                    reason: "became shorter while it was being copied".to_owned(),
                },
                CopyError::Copying(e) => self.failed(s, e),
            })?;
            for piece in run {
                self.mark(s, piece.place.1, &piece.written);
            }
        }
        Ok(())
    }

    /// What is copied from where to where, in the order of the files that are written.
    fn pieces(&self, copies: &[RangeCopy<'_>], from: &Checkpoint) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::with_capacity(copies.len());
        for RangeCopy { name, at, source, range } in copies {
            let stored = from.stored(source)?;
            if range.start > range.end || range.end > stored.bytes {
                let bytes = stored.bytes;
                let reason = format!("`{source}` has {bytes} bytes and none at {range:?}");
                return Err(Error::Order { reason });
            }
            let written = *at..at.saturating_add(range.end - range.start);
            let place = self.free_range(name, &written)?;
            let to = self.shards[place.0].plan.ranges[place.1].start + at;
            pieces.push(Piece { place, written, to, from: from.offset(stored, range.start) });
        }
        pieces.sort_by_key(|piece| (piece.place, piece.written.start));
        let overlap = |two: &&[Piece]| {
            let (a, b) = (&two[0], &two[1]);
            a.place == b.place && (a.written.end > b.written.start || a.written == b.written)
        };
        if let Some(twice) = pieces.windows(2).find(overlap) {
            let (s, t) = twice[0].place;
            return Err(put_twice(&self.shards[s].plan.tensors[t].name));
        }
        Ok(pieces)
    }
}

/// Bytes that lie in one piece here and there.
#[derive(Debug, Clone)]
struct Piece {
    /// File and position of the tensor in it.
    place: (usize, usize),
    /// Which of the tensor's bytes.
    written: Range<u64>,
    /// Where they begin in that file.
    to: u64,
    /// File of the source, and where they begin in it.
    from: (usize, u64),
}

impl Piece {
    fn bytes(&self) -> u64 {
        self.written.end - self.written.start
    }

    /// Whether `next` follows in both files.
    fn runs_on_in(&self, next: &Self) -> bool {
        self.place.0 == next.place.0
            && self.to + self.bytes() == next.to
            && self.from.0 == next.from.0
            && self.from.1 + self.bytes() == next.from.1
    }
}

/// A weight file of the source, for copying from.
struct Input<'a> {
    source: &'a Checkpoint,
    /// Which file.
    file: usize,
    /// The same on this machine, if it is there.
    local: Option<File>,
}

/// What a copy failed at.
enum CopyError {
    Reading(Error),
    /// Reading or writing.
    Copying(io::Error),
}

/// Bytes that are in memory at a time where the source is not on this machine.
const STEP: u64 = 16 << 20;

impl<'a> Input<'a> {
    fn open(source: &'a Checkpoint, file: usize) -> Result<Self, Error> {
        Ok(Self { source, file, local: source.weight_file(file).local()? })
    }

    /// Copies bytes from a place of this file to a place of another.
    fn copy_to(
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
