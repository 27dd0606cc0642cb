//! What a file is, by its content.

use std::{io::Read, path::Path};

use crate::{
    error::Error,
    foreign,
    format::{Container, Format, Shape},
    json::{Document, Kind, Origin, Stream},
    lines::Lines,
    packed::Unpacked,
    parquet::Parquet,
    record::Place,
    shapes,
    table::{self, Table},
};

/// How a file is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The key of each record that has the text, in the place of what is recognised by itself.
    pub text_key: Option<String>,
    /// Only questions with answers are read: every record must have `question` and `answer`, and other shapes are not looked for.
    pub questions: bool,
    /// Every record is an object, of any keys, and is read whole; other shapes are not looked for.
    pub rows: bool,
}

impl ReadOptions {
    /// The options for questions with answers.
    #[must_use]
    pub fn questions() -> Self {
        Self { questions: true, ..Self::default() }
    }

    /// The options for records of any keys, such as the items of a data set.
    #[must_use]
    pub fn rows() -> Self {
        Self { rows: true, ..Self::default() }
    }
}

/// How far to look for the first character that is not white space.
const HEAD: u64 = 64 << 10;

/// Finds out what a file holds. Reads its beginning.
pub(crate) fn detect(path: &Path, options: &ReadOptions) -> Result<Format, Error> {
    let mut unpacked = Unpacked::open(path)?;
    let compression = unpacked.compression;
    let mut head = Vec::new();
    let read = (&mut unpacked.reader).take(HEAD).read_to_end(&mut head);
    read.map_err(|source| unpacked.unreadable(source, None))?;
    let detector = Detector { path, options };
    let (container, shape) = detector.by_head(&head)?;
    Ok(Format { container, shape, compression })
}

struct Detector<'a> {
    path: &'a Path,
    options: &'a ReadOptions,
}

type Found = Result<(Container, Shape), Error>;

impl Detector<'_> {
    fn by_head(&self, head: &[u8]) -> Found {
        if head.starts_with(b"PAR1") && foreign::is_binary(head) {
            return self.parquet();
        }
        if let Some((got, remedy)) = foreign::of(head) {
            return Err(self.unknown(got, remedy));
        }
        if head.trim_ascii().is_empty() && (head.len() as u64) < HEAD {
            return Err(self.unknown("nothing", "it holds no text"));
        }
        let is_json = matches!(head.trim_ascii_start().first(), Some(b'{' | b'['));
        if let Some(container) = table::by_name(self.path).filter(|_| !is_json) {
            return self.table(container);
        }
        if let Some(container) = table::by_header(head) {
            return self.table(container).or_else(|_| self.plain());
        }
        let mut rest = head.iter().filter(|b| !b.is_ascii_whitespace());
        match (rest.next(), rest.next()) {
            (Some(b'{'), Some(b'"' | b'}') | None) => self.objects(),
            (Some(b'['), _) => self.array(begins_with_strings(head)),
            _ => self.plain(),
        }
    }

    fn plain(&self) -> Found {
        match (self.options.questions, self.options.rows) {
            (true, _) => Err(self.unknown(
                "plain text",
                "questions are records with `question` and `answer`, such as JSON lines",
            )),
            (_, true) => {
                Err(self.unknown("plain text", "expected records, such as JSON lines or Parquet"))
            }
            _ => Ok((Container::PlainText, Shape::Pieces)),
        }
    }

    fn table(&self, container: Container) -> Found {
        let table = Table::of(self.open()?, container)?;
        let sample = table.sample();
        let place = Place::Line(1);
        let shape = Document::new(&sample, Origin::Nowhere)
            .map_err(|wrong| self.wrong(place, wrong.0))
            .and_then(|document| self.shape(place, &document))
            .ok()
            .filter(|shape| shapes::keys(shape).iter().all(|key| table.names().contains(key)));
        let names = table.names().iter().map(String::as_str);
        shape
            .map(|shape| (container, shape))
            .ok_or_else(|| self.other_columns(&container.to_string(), names))
    }

    /// Rows of a Parquet file, of which the first that has something decides.
    fn parquet(&self) -> Found {
        const FIRST: usize = 64;
        if self.open()?.compression.is_some() {
            return Err(self.unknown("a Parquet file in an archive", "unpack it first"));
        }
        let key = self.options.text_key.as_deref();
        let is_read = |name: &str| match (key, self.options.questions) {
            _ if self.options.rows => true,
            (_, true) => shapes::is_read(&Shape::QuestionAnswer, name),
            (Some(key), _) => name == key,
            (None, _) => shapes::is_known(name),
        };
        let mut rows = match self.options.rows {
            true => Parquet::open_whole(self.path)?,
            false => Parquet::open(self.path, &is_read)?,
        };
        let needed = if self.options.questions { 2 } else { 1 };
        if rows.names().filter(|name| is_read(name)).count() < needed {
            return Err(self.other_columns("a Parquet file", rows.names()));
        }
        let mut first = None;
        for _ in 0..FIRST {
            let Some((place, row)) = rows.next_row()? else { break };
            let document = Document::new(&row, Origin::Nowhere);
            let document = document.map_err(|wrong| self.wrong(place, wrong.0));
            match document.and_then(|document| self.shape(place, &document)) {
                Ok(shape) => return Ok((Container::Parquet, shape)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first
            .unwrap_or_else(|| self.unknown("a Parquet file without rows", "it holds no text")))
    }

    /// A table of columns that are not read.
    fn other_columns<'n>(&self, what: &str, names: impl Iterator<Item = &'n str>) -> Error {
        let names: Vec<_> = names.take(8).map(|name| format!("`{name:.40}`")).collect();
        let got = format!("{what} with columns {}", names.join(", "));
        let remedy = match self.options.questions {
            true => "questions are in `question` and `answer`",
            false => {
                "rename a column to `text`, or have `question` and `answer`, `messages`, `conversations`, \
                 `instruction` and `output`, or `prompt` and `completion`"
            }
        };
        self.unknown(&got, remedy)
    }

    /// JSON lines, or objects over several lines each.
    fn objects(&self) -> Found {
        let mut lines = Lines::of(self.open()?);
        let Some((place, line)) = lines.next_line()? else { return self.plain() };
        let shape = match Document::new(line, Origin::Line) {
            Ok(document) => self.shape(place, &document)?,
            Err(wrong) => {
                let over_lines = self.over_lines()?;
                return over_lines.ok_or_else(|| self.wrong(place, wrong.0));
            }
        };
        Ok((Container::JsonLines, shape))
    }

    /// What the file is if its first value is one that goes over several lines.
    fn over_lines(&self) -> Result<Option<(Container, Shape)>, Error> {
        let mut stream = Stream::values(self.open()?);
        let Ok(Some(next)) = stream.next_value() else { return Ok(None) };
        if !next.bytes.contains(&b'\n') {
            return Ok(None);
        }
        match Document::new(next.bytes, next.origin) {
            Ok(document) => Ok(Some((Container::JsonObjects, self.shape(next.place, &document)?))),
            Err(wrong) => Err(self.wrong(next.place, wrong.0)),
        }
    }

    /// What begins with a bracket: an array, lines of arrays, or a text.
    /// `of_strings`: it begins as an array of strings does, so that it is no prose.
    fn array(&self, of_strings: bool) -> Found {
        let mut stream = Stream::array(self.open()?)?;
        let error = match stream.next_value() {
            Ok(None) => return Err(self.unknown("an empty JSON array", "it holds no text")),
            Ok(Some(next)) => match Document::new(next.bytes, next.origin) {
                Ok(document) => match self.shape(next.place, &document) {
                    Ok(shape) => return Ok((Container::JsonArray, shape)),
                    Err(error) => error,
                },
                Err(wrong) => self.wrong(next.place, wrong.0),
            },
            Err(error) => error,
        };
        if let Some(shape) = self.line_of_array()? {
            return Ok((Container::JsonLines, shape));
        }
        match of_strings || self.is_json_array()? {
            true => Err(error),
            false => self.plain(),
        }
    }

    /// The shape of the first line if that is an array by itself.
    fn line_of_array(&self) -> Result<Option<Shape>, Error> {
        let mut lines = Lines::of(self.open()?);
        let Some((place, line)) = lines.next_line()? else { return Ok(None) };
        let Ok(document) = Document::new(line, Origin::Line) else { return Ok(None) };
        Ok(self.shape(place, &document).ok())
    }

    /// Whether a file that begins with a bracket is meant to be JSON: it begins with an object, or is an array as a whole.
    fn is_json_array(&self) -> Result<bool, Error> {
        let mut stream = Stream::array(self.open()?)?;
        loop {
            match stream.next_value() {
                Ok(Some(next)) => {
                    let Ok(document) = Document::new(next.bytes, next.origin) else {
                        return Ok(next.bytes.starts_with(b"{\""));
                    };
                    if document.root().kind() == Kind::Object {
                        return Ok(true);
                    }
                }
                Ok(None) => return Ok(true),
                Err(_) => return Ok(stream.is_within_object()),
            }
        }
    }

    fn shape(&self, place: Place, document: &Document<'_>) -> Result<Shape, Error> {
        let root = document.root();
        if self.options.questions || self.options.rows {
            return match root.kind() {
                Kind::Object if self.options.rows => Ok(Shape::Row),
                Kind::Object => Ok(Shape::QuestionAnswer),
                kind => Err(self.wrong(place, kind.to_string())),
            };
        }
        shapes::detect(root, self.options.text_key.as_deref())
            .map_err(|wrong| self.wrong(place, wrong.0))
    }

    fn open(&self) -> Result<Unpacked, Error> {
        Unpacked::open(self.path)
    }

    fn wrong(&self, place: Place, got: String) -> Error {
        let expected = match (self.options.questions, self.options.rows) {
            (true, _) => "a JSON object with `question` and `answer`",
            (_, true) => "a JSON object",
            _ => shapes::KNOWN,
        };
        Error::Record { path: self.path.to_owned(), place, expected: expected.to_owned(), got }
    }

    fn unknown(&self, got: &str, remedy: &str) -> Error {
        Error::UnknownFormat {
            path: self.path.to_owned(),
            got: got.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// Whether a file begins with a bracket, a string in quotes of either kind, and what follows one in an array; the
/// string may be cut short.
fn begins_with_strings(head: &[u8]) -> bool {
    let inside = head.trim_ascii_start().strip_prefix(b"[").unwrap_or_default().trim_ascii_start();
    let Some((&quote @ (b'"' | b'\''), text)) = inside.split_first() else { return false };
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let ends = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let Some(end) = end else { return quote == b'"' };
    match text[end + 1..].trim_ascii_start().split_first() {
        None => true,
        Some((b']', after)) => matches!(after.trim_ascii_start().first(), None | Some(b'[')),
        Some((next, _)) => *next == b',' || *next == quote,
    }
}
