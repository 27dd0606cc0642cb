//! Stored bytes that go from a checkpoint into files that are written.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
};

use moeprune_files::Stretch;

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
        let mut rest = &pieces[..];
        while let Some(first) = rest.first() {
            let (s, inputs) = (first.place.0, Inputs::of(rest, from)?);
            let (group, others) = rest.split_at(inputs.pieces);
            let mut done = 0;
            let copied = self.copy_group(group, &inputs, &mut |bytes| {
                done += bytes;
                progress(bytes);
            });
            copied.map_err(|e| match e {
                CopyError::Reading(e) => e,
                CopyError::Copying(e) => {
                    // For what is said of a full disk.
                    self.written_bytes += done;
                    self.failed(s, e)
                }
            })?;
            for piece in group {
                self.mark(s, piece.place.1, &piece.written);
            }
            rest = others;
        }
        Ok(())
    }

    /// Copies pieces into one file.
    fn copy_group(
        &mut self,
        group: &[Piece],
        inputs: &Inputs<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), CopyError> {
        let s = group[0].place.0;
        let (output, transfers) = self.file(s).map_err(CopyError::Reading)?;
        let stretches: Vec<Stretch<'_>> = group.iter().filter_map(|p| inputs.stretch(p)).collect();
        if stretches.len() == group.len() {
            return transfers.copy(&stretches, output, progress).map_err(|e| match e.kind() {
                ErrorKind::UnexpectedEof => CopyError::Reading(inputs.shortened(group)),
                _ => CopyError::Copying(e),
            });
        }
        for run in group.chunk_by(Piece::runs_on_in) {
            let bytes = run.iter().map(Piece::bytes).sum();
            inputs.read(run[0].from, bytes, &mut |read, done| {
                let written = transfers.write(read, output, run[0].to + done);
                progress(read.len() as u64);
                written.map_err(CopyError::Copying)
            })?;
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

/// Weight files of the source, for copying from into one file.
struct Inputs<'a> {
    source: &'a Checkpoint,
    /// By number, and the same on this machine, if it is there.
    files: BTreeMap<usize, Option<File>>,
    /// How many pieces they have.
    pieces: usize,
}

/// Receives a step of what is read, and how many bytes came before it.
type TakeBytes<'a> = &'a mut dyn FnMut(&[u8], u64) -> Result<(), CopyError>;

/// What a copy failed at.
enum CopyError {
    /// Reading, or something that has its message already.
    Reading(Error),
    Copying(io::Error),
}

/// Files that are read from at a time.
const MAX_INPUTS: usize = 32;

/// Bytes that are in memory at a time where the source is not on this machine.
const STEP: u64 = 16 << 20;

impl<'a> Inputs<'a> {
    /// Opens what the first pieces are copied from, as many as go into one file and are either all on this
    /// machine or all elsewhere.
    fn of(pieces: &[Piece], source: &'a Checkpoint) -> Result<Self, Error> {
        let mut inputs = Self { source, files: BTreeMap::new(), pieces: 0 };
        for piece in pieces.iter().take_while(|piece| piece.place.0 == pieces[0].place.0) {
            if !inputs.files.contains_key(&piece.from.0) {
                if inputs.files.len() == MAX_INPUTS {
                    break;
                }
                let local = source.weight_file(piece.from.0).local()?;
                let alike = |open: &Option<File>| open.is_some() == local.is_some();
                if !inputs.files.values().all(alike) {
                    break;
                }
                inputs.files.insert(piece.from.0, local);
            }
            inputs.pieces += 1;
        }
        Ok(inputs)
    }

    /// What is copied of a file that is on this machine.
    fn stretch(&self, piece: &Piece) -> Option<Stretch<'_>> {
        let from = self.files.get(&piece.from.0)?.as_ref()?;
        Some(Stretch { from, from_at: piece.from.1, to_at: piece.to, bytes: piece.bytes() })
    }

    /// Says which file ends before what is copied of it.
    fn shortened(&self, group: &[Piece]) -> Error {
        let is_short = |piece: &&Piece| {
            let file = self.files.get(&piece.from.0).and_then(Option::as_ref);
            let length = file.and_then(|file| file.metadata().ok()).map(|metadata| metadata.len());
            length.is_some_and(|length| length < piece.from.1 + piece.bytes())
        };
        let piece = group.iter().find(is_short).unwrap_or(&group[0]);
        Error::Shard {
            path: self.source.weight_file(piece.from.0).path().to_owned(),
            reason: "became shorter while it was being copied".to_owned(),
        }
    }

    /// Reads bytes of a file, wherever it is, and hands over each step with how many came before.
    fn read(
        &self,
        (file, at): (usize, u64),
        bytes: u64,
        take: TakeBytes<'_>,
    ) -> Result<(), CopyError> {
        let mut done = 0;
        while done < bytes {
            let step = STEP.min(bytes - done);
            let range = at + done..at + done + step;
            let read = self.source.weight_file(file).read(range);
            take(&read.map_err(CopyError::Reading)?, done)?;
            done += step;
        }
        Ok(())
    }
}
