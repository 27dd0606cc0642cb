//! What is moved, and the blocks that it is moved in.

use std::{fs::File, ops::Range};

/// Bytes that go to one place of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) to_at: u64,
    pub(super) bytes: u64,
}

/// Where bytes come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A file, and the place in it.
    File(&'a File, u64),
    Memory(&'a [u8]),
}

impl<'a> Piece<'a> {
    pub(super) fn end(&self) -> u64 {
        self.to_at + self.bytes
    }

    /// The part of a piece that begins `from` bytes behind its beginning and has `bytes` bytes.
    pub(super) fn part(&self, from: u64, bytes: u64) -> Self {
        let origin = match self.origin {
            Origin::File(file, at) => Origin::File(file, at + from),
            Origin::Memory(all) => Origin::Memory(&all[from as usize..][..bytes as usize]),
        };
        Self { origin, to_at: self.to_at + from, bytes }
    }
}

/// Takes the first `bytes` bytes off a list of pieces, or all if there are no more.
pub(super) fn portions<'a>(pieces: &mut Vec<Piece<'a>>, bytes: u64) -> Vec<Piece<'a>> {
    let (mut taken, mut left) = (Vec::new(), bytes);
    let mut whole = 0;
    for piece in pieces.iter_mut() {
        if left == 0 {
            break;
        }
        let part = left.min(piece.bytes);
        taken.push(piece.part(0, part));
        *piece = piece.part(part, piece.bytes - part);
        whole += usize::from(piece.bytes == 0);
        left -= part;
    }
    pieces.drain(..whole);
    taken
}

/// The ranges of the file that pieces lie in without gaps.
pub(super) fn extents(pieces: &[Piece<'_>]) -> Vec<Range<u64>> {
    let runs = pieces.chunk_by(|a, b| a.end() == b.to_at);
    runs.map(|run| run[0].to_at..run[run.len() - 1].end()).filter(|r| !r.is_empty()).collect()
}

/// Hands out blocks in the order of their places: each ends at a multiple of the block's size, at a gap, or,
/// if pieces are not to be put together, at the end of one.
#[derive(Debug)]
pub(super) struct Blocks<'p, 'a> {
    pieces: &'p [Piece<'a>],
    size: u64,
    together: bool,
    /// How much of the first piece was handed out.
    done: u64,
}

impl<'p, 'a> Blocks<'p, 'a> {
    pub(super) fn new(pieces: &'p [Piece<'a>], size: u64, together: bool) -> Self {
        Self { pieces, size, together, done: 0 }
    }
}

impl<'a> Iterator for Blocks<'_, 'a> {
    type Item = Vec<Piece<'a>>;

    fn next(&mut self) -> Option<Vec<Piece<'a>>> {
        let mut block: Vec<Piece<'a>> = Vec::new();
        let mut end = 0;
        while let Some((piece, others)) = self.pieces.split_first() {
            let (at, left) = (piece.to_at + self.done, piece.bytes - self.done);
            match block.last() {
                _ if left == 0 => {}
                None => end = (at / self.size + 1) * self.size,
                Some(last) if self.together && last.end() == at && at < end => {}
                Some(_) => break,
            }
            let part = left.min(end.saturating_sub(at));
            if part > 0 {
                block.push(piece.part(self.done, part));
            }
            self.done += part;
            if self.done < piece.bytes {
                break;
            }
            (self.pieces, self.done) = (others, 0);
        }
        (!block.is_empty()).then_some(block)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of them short")]
mod tests {
    use super::*;

    fn pieces<'a>(bytes: &'a [u8], places: &[Range<u64>]) -> Vec<Piece<'a>> {
        let piece = |r: &Range<u64>| Piece {
            origin: Origin::Memory(&bytes[r.start as usize..r.end as usize]),
            to_at: r.start,
            bytes: r.end - r.start,
        };
        places.iter().map(piece).collect()
    }

    fn ranges(pieces: &[Piece<'_>]) -> Vec<Range<u64>> {
        pieces.iter().map(|p| p.to_at..p.end()).collect()
    }

    #[track_caller]
    fn check(places: &[Range<u64>], together: bool, expected: &[&[Range<u64>]]) {
        let bytes: Vec<u8> = (0..100).collect();
        let pieces = pieces(&bytes, places);
        let blocks: Vec<_> = Blocks::new(&pieces, 10, together).collect();
        let got: Vec<_> = blocks.iter().map(|block| ranges(block)).collect();
        assert_eq!(got, expected);
        for piece in blocks.iter().flatten() {
            let Origin::Memory(of) = piece.origin else { unreachable!("made above") };
            assert_eq!(of, &bytes[piece.to_at as usize..piece.end() as usize]);
        }
    }

    #[test]
    fn blocks_end_at_multiples_and_gaps() {
        check(&[], true, &[]);
        check(&[5..5], true, &[]);
        check(&[0..10], true, &[&[0..10]]);
        check(&[3..25], true, &[&[3..10], &[10..20], &[20..25]]);
        check(&[3..5, 5..5, 5..8, 8..12], true, &[&[3..5, 5..8, 8..10], &[10..12]]);
        check(&[3..5, 5..8], false, &[&[3..5], &[5..8]]);
        check(&[3..5, 6..8, 20..21], true, &[&[3..5], &[6..8], &[20..21]]);
        check(&[3..10, 10..11], true, &[&[3..10], &[10..11]]);
        check(&[0..4, 4..4], true, &[&[0..4]]);
    }

    #[track_caller]
    fn check_portion(places: &[Range<u64>], bytes: u64, taken: &[Range<u64>], left: &[Range<u64>]) {
        let of: Vec<u8> = (0..100).collect();
        let mut pieces = pieces(&of, places);
        assert_eq!(ranges(&portions(&mut pieces, bytes)), taken);
        assert_eq!(ranges(&pieces), left);
    }

    #[test]
    fn portions_are_taken_from_the_front() {
        check_portion(&[0..5, 7..9], 100, &[0..5, 7..9], &[]);
        check_portion(&[0..5, 7..9], 7, &[0..5, 7..9], &[]);
        check_portion(&[0..5, 7..9], 6, &[0..5, 7..8], &[8..9]);
        check_portion(&[0..5, 7..9], 5, &[0..5], &[7..9]);
        check_portion(&[0..5, 7..9], 2, &[0..2], &[2..5, 7..9]);
        check_portion(&[0..0, 7..9], 1, &[0..0, 7..8], &[8..9]);
    }

    #[test]
    fn extents_join_neighbours() {
        let of: Vec<u8> = (0..100).collect();
        let check = |places: &[Range<u64>], expected: &[Range<u64>]| {
            assert_eq!(extents(&pieces(&of, places)), expected);
        };
        check(&[], &[]);
        check(&[3..5, 5..9, 10..12], &[3..9, 10..12]);
        check(&[3..3], &[]);
    }
}
