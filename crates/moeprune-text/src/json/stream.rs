//! JSON values one after another in a stream of bytes, one at a time in memory.

use crate::{error::Error, json::Origin, packed::Unpacked, record::Place};

/// A longer record is refused: it is held and tokenised as a whole.
const LONGEST: usize = 256 << 20;

/// The items of an array, or values that follow each other.
pub(crate) struct Stream {
    unpacked: Unpacked,
    value: Vec<u8>,
    /// Line and column of the next byte.
    line: u64,
    column: u64,
    items: u64,
    array: bool,
    done: bool,
}

/// A value of a stream.
#[derive(Debug)]
pub(crate) struct Next<'a> {
    pub(crate) place: Place,
    pub(crate) origin: Origin,
    pub(crate) bytes: &'a [u8],
}

impl Stream {
    /// The items of the array that `unpacked` begins with.
    pub(crate) fn array(unpacked: Unpacked) -> Result<Self, Error> {
        let mut stream = Self::values(unpacked);
        stream.array = true;
        match stream.skip_blanks()? {
            Some(b'[') => stream.skip(),
            _ => return Err(stream.wrong("`[`", "something else")),
        }
        Ok(stream)
    }

    /// Values that follow each other, with nothing but white space between them.
    pub(crate) fn values(unpacked: Unpacked) -> Self {
        let value = Vec::new();
        Self { unpacked, value, line: 1, column: 1, items: 0, array: false, done: false }
    }

    /// The next value; `None` at the end and after an error.
    pub(crate) fn next_value(&mut self) -> Result<Option<Next<'_>>, Error> {
        if self.done {
            return Ok(None);
        }
        self.done = true; // unless all goes well
        let next = self.skip_blanks()?;
        if next == Some(b']') && self.array && self.items == 0 {
            return self.end();
        }
        if next.is_some() || self.array {
            self.items += 1;
        }
        let first = match next {
            None if !self.array => return Ok(None),
            None => return Err(self.wrong("an item or `]`", "the end of the file")),
            Some(b']') if self.array => return Err(self.wrong("an item after `,`", "`]`")),
            Some(first) => first,
        };
        let origin = Origin::At { line: self.line, column: self.column };
        self.read_value(first)?;
        if self.array {
            match self.skip_blanks()? {
                Some(b',') => {
                    self.skip();
                    self.done = false;
                }
                Some(b']') => {
                    self.end()?;
                }
                Some(_) => return Err(self.wrong("`,` or `]` after an item", "something else")),
                None => return Err(self.wrong("`,` or `]` after an item", "the end of the file")),
            }
        } else {
            self.done = false;
        }
        Ok(Some(Next { place: Place::Item(self.items), origin, bytes: &self.value }))
    }

    /// Takes the `]`, after which nothing may come.
    fn end(&mut self) -> Result<Option<Next<'_>>, Error> {
        self.skip();
        match self.skip_blanks()? {
            None => Ok(None),
            Some(_) => Err(self.wrong("the end of the file after `]`", "more text")),
        }
    }

    /// Reads the value that begins with `first` into `self.value`.
    fn read_value(&mut self, first: u8) -> Result<(), Error> {
        self.value.clear();
        let mut scan = Scan::default();
        loop {
            let piece = match self.unpacked.reader.fill_buf() {
                Ok(piece) => piece,
                Err(source) => return Err(self.unreadable(source)),
            };
            if piece.is_empty() {
                return match first {
                    b'{' | b'[' | b'"' => Err(self.wrong("a whole value", "the end of the file")),
                    _ => Ok(()),
                };
            }
            let (length, ended) = scan.over(piece);
            let piece = &piece[..length];
            self.value.extend_from_slice(piece);
            let breaks = piece.iter().filter(|&&b| b == b'\n').count() as u64;
            let tail = piece.iter().rev().take_while(|&&b| b != b'\n').count() as u64;
            self.column = if breaks == 0 { self.column + tail } else { tail + 1 };
            self.line += breaks;
            self.unpacked.reader.consume(length);
            if scan.broken {
                return Err(self.wrong("a string that ends", "a line break in it"));
            }
            if self.value.len() > LONGEST {
                return Err(self.wrong("at most 256 MiB", "a longer one"));
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The next byte that is no white space, which stays.
    fn skip_blanks(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let next = match self.unpacked.reader.fill_buf() {
                Ok(piece) => piece.first().copied(),
                Err(source) => return Err(self.unreadable(source)),
            };
            match next {
                Some(b'\n') => (self.line, self.column) = (self.line + 1, 0),
                Some(byte) if byte.is_ascii_whitespace() => {}
                next => return Ok(next),
            }
            self.skip();
        }
    }

    fn skip(&mut self) {
        self.unpacked.reader.consume(1);
        self.column += 1;
    }

    /// Whether what was read last begins as an object does.
    pub(crate) fn is_within_object(&self) -> bool {
        let mut bytes = self.value.iter().filter(|b| !b.is_ascii_whitespace());
        bytes.next() == Some(&b'{') && matches!(bytes.next(), Some(b'"' | b'}'))
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        let last = self.items.checked_sub(1).filter(|&n| n > 0);
        self.unpacked.unreadable(source, last.map(Place::Item))
    }

    fn wrong(&self, expected: &str, got: &str) -> Error {
        let got = format!("{got} at line {} column {}", self.line, self.column);
        self.unpacked.wrong(Place::Item(self.items.max(1)), expected, got)
    }
}

/// Where within a value one is.
#[derive(Default)]
struct Scan {
    depth: usize,
    quoted: bool,
    escaped: bool,
    begun: bool,
    /// A line break within a string, which JSON does not have: most likely a quote is missing.
    broken: bool,
}

impl Scan {
    /// How many bytes of `piece` belong to the value, and whether it ends there.
    fn over(&mut self, piece: &[u8]) -> (usize, bool) {
        for (at, &byte) in piece.iter().enumerate() {
            if self.quoted {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'\n' => {
                        self.broken = true;
                        return (at, true);
                    }
                    b'"' => self.quoted = false,
                    _ => continue,
                }
                if self.quoted || self.depth > 0 {
                    continue;
                }
                return (at + 1, true);
            }
            match byte {
                b'"' if self.begun && self.depth == 0 => return (at, true),
                b'"' => self.quoted = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' | b',' if self.depth == 0 => {
                    // A value cannot begin with these: one byte is taken, for the parser to name.
                    return (at + usize::from(!self.begun), true);
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                byte if byte.is_ascii_whitespace() && self.depth == 0 => return (at, true),
                _ => {}
            }
            self.begun = true;
        }
        (piece.len(), false)
    }
}
