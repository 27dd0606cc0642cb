//! A plain text in pieces.

use std::io::{BufRead, Read};

use crate::{
    error::Error,
    packed::Unpacked,
    record::{Content, Place, Record},
};

const PIECE: usize = 1 << 20;
/// The longest character in UTF-8.
const CHARACTER: usize = 4;

/// A plain text, a piece at a time in memory.
pub(crate) struct Pieces {
    unpacked: Unpacked,
    /// Bytes that were read and are in no piece: the beginning of a character.
    begun: Vec<u8>,
    line: u64,
    done: bool,
}

impl Pieces {
    pub(crate) fn of(unpacked: Unpacked) -> Self {
        Self { unpacked, begun: Vec::new(), line: 1, done: false }
    }

    /// The next piece; `None` after the last one and after an error.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Record>, Error> {
        if self.done {
            return Ok(None);
        }
        self.done = true; // unless all goes well
        let mut bytes = Vec::with_capacity(PIECE + CHARACTER);
        bytes.append(&mut self.begun);
        let reader = &mut self.unpacked.reader;
        let read = reader.take((PIECE - bytes.len()) as u64).read_to_end(&mut bytes);
        let last = read.and_then(|_| Ok(reader.fill_buf()?.is_empty()));
        let place = Place::Line(self.line);
        let last = last.map_err(|source| {
            self.unpacked.unreadable(source, (self.line > 1).then_some(Place::Line(self.line)))
        })?;
        let valid = match str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() && !last => error.valid_up_to(),
            Err(error) => {
                let line = self.line + breaks(&bytes[..error.valid_up_to()]);
                return Err(self.unpacked.wrong(
                    Place::Line(line),
                    "UTF-8 text",
                    "bytes that are not",
                ));
            }
        };
        self.begun = bytes.split_off(valid);
        self.line += breaks(&bytes);
        self.done = last;
        let text = String::from_utf8(bytes).unwrap_or_default(); // it was checked above
        Ok(Some(Record { place, content: Content::Piece { text, last } }))
    }
}

fn breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&b| b == b'\n').count() as u64
}
