//! Threads that each move one block at a time.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use super::{
    block::Block,
    pace::Trial,
    piece::{Blocks, Origin, Piece, extents},
    target::{Target, copy_within_system, opened_again},
    way::{Means, Way},
    writeback,
};
use crate::positioned::read_at;

/// Bytes that go through the system's cache before they are written to the disk and forgotten.
const CACHED: u64 = 128 << 20;

/// Threads that each move one block at a time, with their memory, which is kept.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    blocks: Vec<Block>,
}

/// What came of moving bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    /// Whether the system did not take the way that was wanted, and another was gone.
    pub(super) refused: bool,
}

impl Lanes {
    /// Moves pieces into a file in one way, and waits until they are written if that is a trial; `moved` is called with
    /// the length of each block.
    pub(super) fn run(
        &mut self,
        trial: Trial,
        pieces: &[Piece<'_>],
        file: &File,
        moved: &mut dyn FnMut(u64),
    ) -> io::Result<Moved> {
        let extents = extents(pieces);
        let way = trial.way.scaled_to(pieces.iter().map(|piece| piece.bytes).sum());
        let target = Target::new(file, way.means);
        target.reserve(&extents);
        self.blocks.resize_with(self.blocks.len().max(way.lanes), Block::default);
        let work = Work {
            target: &target,
            means: way.means,
            shares: trial.shares,
            blocks: Mutex::new(Blocks::new(pieces, way.block, way.means != Means::System)),
            ended: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        let mut written = Written { trial, way, file, extents: &extents, cached: 0 };
        let finished = match &mut self.blocks[..way.lanes] {
            [block] => work.alone(block, &mut |bytes| written.note(bytes, moved)),
            blocks => work.together(blocks, &mut |bytes| written.note(bytes, moved)),
        };
        let Work { failure, .. } = work;
        if let Some((_, e)) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
        finished.and_then(|()| written.finish())?;
        Ok(Moved { refused: target.is_refused() })
    }
}

/// What was written, as far as the thread that waits for it knows.
struct Written<'w> {
    trial: Trial,
    way: Way,
    file: &'w File,
    extents: &'w [Range<u64>],
    /// Bytes that went into the system's cache since they were written to the disk last.
    cached: u64,
}

impl Written<'_> {
    /// Counts bytes, and has those in the cache written to the disk if they are many.
    fn note(&mut self, bytes: u64, moved: &mut dyn FnMut(u64)) -> io::Result<()> {
        moved(bytes);
        if self.way.means != Means::Direct && !self.trial.shares {
            self.cached += bytes;
        }
        if self.cached >= CACHED { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> io::Result<()> {
        writeback::wait(self.file, self.extents)?;
        writeback::forget(self.file, self.extents);
        self.cached = 0;
        Ok(())
    }

    /// A trial is over when its bytes are on the disk; direct writes end there.
    fn finish(&mut self) -> io::Result<()> {
        if self.trial.measured && self.cached > 0 { self.settle() } else { Ok(()) }
    }
}

/// Blocks that wait to be moved.
struct Work<'w, 'a> {
    target: &'w Target<'w>,
    means: Means,
    shares: bool,
    blocks: Mutex<Blocks<'w, 'a>>,
    /// Whether no more blocks are to be begun.
    ended: AtomicBool,
    /// The failure at the first place, and that place.
    failure: Mutex<Option<(u64, io::Error)>>,
}

impl<'a> Work<'_, 'a> {
    fn alone(
        &self,
        block: &mut Block,
        note: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut noted = Ok(());
        self.lane(block, &mut |bytes| {
            noted = note(bytes);
            noted.is_ok()
        });
        noted
    }

    fn together(
        &self,
        blocks: &mut [Block],
        note: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        // Where bytes wait for the disk, so do the lanes.
        let (give, take) = mpsc::sync_channel(blocks.len());
        // Owns its channel ends: lanes end when this thread has failed.
        thread::scope(move |scope| {
            for block in blocks {
                let give = give.clone();
                scope.spawn(move || self.lane(block, &mut |bytes| give.send(bytes).is_ok()));
            }
            drop(give);
            take.into_iter().try_for_each(note)
        })
    }

    /// Moves one block after the other, until there are no more, one fails, or the caller of `moved` gave up.
    fn lane(&self, block: &mut Block, moved: &mut dyn FnMut(u64) -> bool) {
        let mut source = Source::default();
        while let Some(pieces) = self.next_block() {
            let bytes = pieces.iter().map(|piece| piece.bytes).sum();
            let moved_block = self.move_block(&pieces, block, &mut source);
            if self.means != Means::Direct && !self.shares {
                let last = &pieces[pieces.len() - 1];
                writeback::begin(self.target.file, &(pieces[0].to_at..last.end()));
            }
            match moved_block {
                Ok(()) if moved(bytes) => {}
                Ok(()) => self.ended.store(true, Ordering::Relaxed),
                Err(e) => self.fail(pieces[0].to_at, e),
            }
        }
    }

    fn next_block(&self) -> Option<Vec<Piece<'a>>> {
        if self.ended.load(Ordering::Relaxed) {
            return None;
        }
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Blocks before this one were begun before and are finished, so that the failure at the first place is known.
    fn fail(&self, at: u64, e: io::Error) {
        self.ended.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(first, _)| at < *first) {
            *failure = Some((at, e));
        }
    }

    fn move_block(
        &self,
        pieces: &[Piece<'a>],
        block: &mut Block,
        source: &mut Source<'a>,
    ) -> io::Result<()> {
        let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
        let mut done = 0;
        if self.means == Means::System {
            done = self.within_system(first)?;
            if done == first.bytes {
                return Ok(());
            }
        }
        let (at, end) = (first.to_at + done, last.end());
        if self.means != Means::Direct
            && let [Piece { origin: Origin::Memory(bytes), .. }] = pieces
        {
            return self.target.write(&bytes[done as usize..], at);
        }
        let mut bytes = &mut *block.at(at, (end - at) as usize);
        for piece in pieces {
            let skipped = done.min(piece.bytes);
            let (part, rest) = bytes.split_at_mut((piece.bytes - skipped) as usize);
            match piece.part(skipped, part.len() as u64).origin {
                Origin::File(file, at) => read_at(source.of(file), part, at)?,
                Origin::Memory(of) => part.copy_from_slice(of),
            }
            (bytes, done) = (rest, done - skipped);
        }
        self.target.write(block.at(at, (end - at) as usize), at)
    }

    /// How many bytes of a piece were copied within the system, from its beginning on.
    fn within_system(&self, piece: &Piece<'_>) -> io::Result<u64> {
        let Origin::File(from, from_at) = piece.origin else { return Ok(0) };
        let mut done = 0;
        while done < piece.bytes && !self.target.is_refused() {
            let to = (self.target.file, piece.to_at + done);
            match copy_within_system((from, from_at + done), to, piece.bytes - done)? {
                Some(copied) => done += copied,
                None => self.target.refuse(),
            }
        }
        Ok(done)
    }
}

/// The file that a lane reads last, open for it alone if that can be.
#[derive(Default)]
struct Source<'a> {
    last: Option<(&'a File, Option<File>)>,
}

impl<'a> Source<'a> {
    fn of(&mut self, file: &'a File) -> &File {
        let last = match self.last.take() {
            Some(last) if std::ptr::eq(last.0, file) => last,
            _ => (file, opened_again(file)),
        };
        let (file, own) = self.last.insert(last);
        own.as_ref().unwrap_or(file)
    }
}
