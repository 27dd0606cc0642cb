//! The lines of a file that are not blank.

use std::io::{BufRead, Read};

use crate::{error::Error, packed::Unpacked, record::Place};

/// A longer line is refused: it is one document, which is held and tokenised as a whole.
const LONGEST: u64 = 256 << 20;

/// A byte order mark, which is within a file where several were joined.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a file that are not blank, one at a time in memory.
pub(crate) struct Lines {
    unpacked: Unpacked,
    line: Vec<u8>,
    number: u64,
    done: bool,
}

impl Lines {
    pub(crate) fn of(unpacked: Unpacked) -> Self {
        Self { unpacked, line: Vec::new(), number: 0, done: false }
    }

    /// The next line and its place; `None` at the end and after an error.
    pub(crate) fn next_line(&mut self) -> Result<Option<(Place, &[u8])>, Error> {
        while !self.done {
            self.line.clear();
            let mut limited = (&mut self.unpacked.reader).take(LONGEST + 1);
            let length = match limited.read_until(b'\n', &mut self.line) {
                Ok(length) => length as u64,
                Err(source) => {
                    self.done = true;
                    let last = (self.number > 0).then_some(Place::Line(self.number));
                    return Err(self.unpacked.unreadable(source, last));
                }
            };
            self.number += 1;
            let place = Place::Line(self.number);
            if length > LONGEST {
                self.done = true;
                return Err(self.unpacked.wrong(place, "at most 256 MiB", "a longer line"));
            }
            self.done = length == 0;
            let line = self.line.strip_prefix(MARK).unwrap_or(&self.line);
            if !line.trim_ascii().is_empty() {
                let start = self.line.len() - line.len();
                return Ok(Some((place, self.line[start..].trim_ascii_end())));
            }
        }
        Ok(None)
    }
}
