//! Rows of comma- or tab-separated values below a row of names.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    mem,
    path::Path,
    rc::Rc,
};

use csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use crate::{error::Error, format::Container, packed::Unpacked, record::Place};

/// A longer row is refused: most likely a quote is missing, and the row goes on to the end of the file.
const LONGEST: u64 = 256 << 20;
/// Names are shorter than this, or the first line is none of names.
const LONGEST_HEADER: u64 = 64 << 10;

/// The rows of a table, one at a time in memory.
pub(crate) struct Table {
    unpacked: Unpacked,
    rows: csv::Reader<Limited>,
    names: Vec<String>,
    row: StringRecord,
    left: Rc<Cell<u64>>,
    /// What is to be added to the number of a line: of a break of two characters, the parser takes the second one for the next line's.
    line_break: u64,
}

impl Table {
    /// Reads the row of names.
    pub(crate) fn of(mut unpacked: Unpacked, container: Container) -> Result<Self, Error> {
        let left = Rc::new(Cell::new(LONGEST_HEADER));
        let head = unpacked.reader.fill_buf().unwrap_or_default();
        let line_break = head.windows(2).find(|pair| pair[1] == b'\n').unwrap_or_default();
        let line_break = u64::from(line_break.starts_with(b"\r"));
        let reader = mem::replace(&mut unpacked.reader, Box::new(io::empty()));
        let limited = Limited { reader, left: Rc::clone(&left) };
        let delimiter = if container == Container::Tsv { b'\t' } else { b',' };
        let rows = ReaderBuilder::new().delimiter(delimiter).from_reader(limited);
        let row = StringRecord::new();
        let mut table = Self { unpacked, rows, names: Vec::new(), row, left, line_break };
        let names = table.rows.headers();
        let names = names.map(|names| names.iter().map(|n| n.trim().to_owned()).collect());
        table.names = names.map_err(|error| table.wrong(&error, 1))?;
        let twice = table
            .names
            .iter()
            .enumerate()
            .find(|(n, name)| !name.is_empty() && table.names[..*n].contains(name));
        match twice {
            Some((_, name)) => {
                let got = format!("`{name:.40}` twice");
                Err(table.unpacked.wrong(Place::Line(1), "names of columns", got))
            }
            None => Ok(table),
        }
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// An object with a string under each name.
    pub(crate) fn sample(&self) -> Vec<u8> {
        let fields = self.names.iter().map(|name| (name.clone(), Value::from("x")));
        Value::Object(fields.collect()).to_string().into_bytes()
    }

    /// The next row as a JSON object, and where it begins.
    pub(crate) fn next_row(&mut self) -> Result<Option<(Place, Vec<u8>)>, Error> {
        self.left.set(LONGEST);
        let line = self.rows.position().line();
        match self.rows.read_record(&mut self.row) {
            Err(error) => return Err(self.wrong(&error, line)),
            Ok(false) => return Ok(None),
            Ok(true) => {}
        }
        let line = self.row.position().map_or(line, Position::line) + self.line_break;
        let fields = self.names.iter().zip(self.row.iter());
        let object: Map<String, Value> =
            fields.map(|(name, value)| (name.clone(), value.into())).collect();
        Ok(Some((Place::Line(line), Value::Object(object).to_string().into_bytes())))
    }

    fn wrong(&self, error: &csv::Error, line: u64) -> Error {
        let line = error.position().map_or(line, Position::line).max(1);
        let wrong = |expected: &str, got| self.unpacked.wrong(Place::Line(line), expected, got);
        match error.kind() {
            ErrorKind::Io(source) if source.get_ref().is_some_and(|e| e.is::<TooLong>()) => {
                wrong("a shorter row", "one that does not end; a quote may be missing".to_owned())
            }
            ErrorKind::Io(source) => {
                self.unpacked.unreadable(copied(source), Some(Place::Line(line)))
            }
            ErrorKind::Utf8 { .. } => wrong("UTF-8 text", "bytes that are not".to_owned()),
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                wrong(&format!("{expected_len} values, as there are names"), len.to_string())
            }
            _ => wrong("a row of values", error.to_string()),
        }
    }
}

/// The error once more: one within another error cannot be moved out.
fn copied(source: &io::Error) -> io::Error {
    match source.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(source.kind(), source.to_string()),
    }
}

/// A reader that fails when more than `left` bytes were read.
struct Limited {
    reader: Box<dyn BufRead>,
    left: Rc<Cell<u64>>,
}

#[derive(Debug, thiserror::Error)]
#[error("too long")]
struct TooLong;

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(length as u64);
        self.left.set(left.ok_or_else(|| io::Error::other(TooLong))?);
        Ok(length)
    }
}

/// The kind of table that a file's name speaks of.
pub(crate) fn by_name(path: &Path) -> Option<Container> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let packed = [".gz", ".zst", ".gzip", ".zstd"];
    let name = packed.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(Container::Csv),
        "tsv" | "tab" => Some(Container::Tsv),
        _ => None,
    }
}

/// The kind of table that a file's first two lines are, whose names look like names: prose with commas is none.
pub(crate) fn by_header(head: &[u8]) -> Option<Container> {
    let mut lines = head.split(|&b| b == b'\n');
    let (names, first) = (str::from_utf8(lines.next()?).ok()?, lines.next()?);
    let is_name = |name: &str| {
        let name = name.trim_matches('"');
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.len() <= 40
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let kinds = [(b',', Container::Csv), (b'\t', Container::Tsv)];
    let fits = |delimiter: u8| {
        let names = names.trim_end().split(delimiter as char);
        names.clone().count() > 1 && names.clone().all(is_name) && first.contains(&delimiter)
    };
    kinds.into_iter().find(|&(delimiter, _)| fits(delimiter)).map(|(_, container)| container)
}
