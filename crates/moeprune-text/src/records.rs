//! The records of a file, one after another.

use std::{fmt, path::Path};

use crate::{
    error::Error,
    format::{Container, Format, Shape},
    json::{Document, Origin, Stream, Wrong},
    lines::Lines,
    packed::Unpacked,
    parquet::Parquet,
    pieces::Pieces,
    record::{Place, Record},
    shapes,
    table::Table,
};

/// The records of a file, from [`TextFile::records`](crate::TextFile::records). One record, or one piece of a plain text, is in memory at a time.
/// After an error there are no more.
pub struct Records<'a> {
    path: &'a Path,
    shape: &'a Shape,
    source: Source,
    read: u64,
    done: bool,
}

enum Source {
    Pieces(Pieces),
    Lines(Lines),
    Stream(Stream),
    Table(Box<Table>),
    Parquet(Box<Parquet>),
}

impl Source {
    /// The next row, as a JSON object, of what has rows.
    fn next_row(&mut self) -> Result<Option<(Place, Vec<u8>)>, Error> {
        match self {
            Self::Table(table) => table.next_row(),
            Self::Parquet(rows) => rows.next_row(),
            _ => Ok(None),
        }
    }
}

impl<'a> Records<'a> {
    pub(crate) fn open(path: &'a Path, format: &'a Format) -> Result<Self, Error> {
        if format.container == Container::Parquet {
            let rows = match format.shape {
                Shape::Row => Parquet::open_whole(path)?,
                _ => Parquet::open(path, &|name| shapes::is_read(&format.shape, name))?,
            };
            let source = Source::Parquet(Box::new(rows));
            return Ok(Self { path, shape: &format.shape, source, read: 0, done: false });
        }
        let unpacked = Unpacked::open(path)?;
        let source = match format.container {
            Container::PlainText => Source::Pieces(Pieces::of(unpacked)),
            Container::JsonArray => Source::Stream(Stream::array(unpacked)?),
            Container::JsonObjects => Source::Stream(Stream::values(unpacked)),
            Container::Csv | Container::Tsv => {
                Source::Table(Box::new(Table::of(unpacked, format.container)?))
            }
            _ => Source::Lines(Lines::of(unpacked)),
        };
        Ok(Self { path, shape: &format.shape, source, read: 0, done: false })
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        let row;
        let (place, origin, bytes) = match &mut self.source {
            Source::Pieces(pieces) => return pieces.next_piece(),
            Source::Lines(lines) => match lines.next_line()? {
                Some((place, line)) => (place, Origin::Line, line),
                None => return Ok(None),
            },
            Source::Stream(stream) => match stream.next_value()? {
                Some(next) => (next.place, next.origin, next.bytes),
                None => return Ok(None),
            },
            Source::Table(_) | Source::Parquet(_) => match self.source.next_row()? {
                Some((place, object)) => {
                    row = object;
                    (place, Origin::Nowhere, row.as_slice())
                }
                None => return Ok(None),
            },
        };
        let content = Document::new(bytes, origin)
            .and_then(|document| shapes::read(self.shape, document.root()))
            .map_err(|Wrong(got)| self.wrong(place, got))?;
        Ok(Some(Record { place, content }))
    }

    fn wrong(&self, place: Place, got: String) -> Error {
        let first = match place {
            Place::Line(_) | Place::Item(_) if matches!(self.source, Source::Table(_)) => "",
            Place::Line(_) if self.read > 0 => " as on the first line",
            Place::Item(_) if self.read > 0 => " as in the first item",
            _ => "",
        };
        let expected = format!("{}{first}", shapes::expected(self.shape));
        Error::Record { path: self.path.to_owned(), place, expected, got }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_record().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        self.read += 1;
        next
    }
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("path", &self.path).finish_non_exhaustive()
    }
}
