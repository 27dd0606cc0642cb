//! Calibration text in a file.

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use moeprune_core::{CorpusTag, StageError};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{CalibrationSource, Document, Documents, Error, TokenBlocks};

/// A longer line is refused: it is one document, which is held and tokenised as a whole.
const LONGEST_LINE: u64 = 256 << 20;
/// A longer plain text is refused, for the same reason.
const LONGEST_TEXT: u64 = 1 << 30;
/// How far to look for the first character that is not white space.
const HEAD: u64 = 64 << 10;

/// Opens a calibration file and finds out what it is from its content, under any name.
///
/// Reads its beginning only. See [`CalibrationFormat`] for what it may hold; each may be gzipped.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("calibration");
/// # std::fs::write(&path, "{\"tokens\": [1, 2, 3]}\n")?;
/// use moeprune_capture::{CalibrationFormat, open_calibration};
/// assert_eq!(open_calibration(&path)?.format(), CalibrationFormat::TokenLines);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be read, is empty, or holds something else.
pub fn open_calibration(path: impl Into<PathBuf>) -> Result<CalibrationFile, Error> {
    let path = path.into();
    let metadata = path.metadata().map_err(|source| Error::Read { path: path.clone(), source })?;
    if !metadata.is_file() {
        return Err(Error::UnknownFormat {
            path,
            got: "a pipe, a device or a folder".to_owned(),
            remedy: "the text is read more than once; write it to a file first",
        });
    }
    let format = detect(&path)?;
    Ok(CalibrationFile { path, format })
}

/// A file of calibration text, from [`open_calibration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationFile {
    path: PathBuf,
    format: CalibrationFormat,
}

/// What a calibration file holds. The first line that is not blank decides, and every line must
/// then be the same; keys that are not named here are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CalibrationFormat {
    /// Anything that does not begin like a JSON object: the whole file is one document.
    PlainText,
    /// `{"text": "…"}`, one document per line, as C4 is distributed.
    TextLines,
    /// `{"question": "…", "answer": "…"}`, as GSM8K is distributed; the document is
    /// `Question: …`, a line break and `Answer: …`.
    QuestionLines,
    /// `{"tokens": [1, 2, …]}`, one document per line, tokenised already.
    TokenLines,
}

impl fmt::Display for CalibrationFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainText => "plain text",
            Self::TextLines => "lines of `{\"text\": \"…\"}`",
            Self::QuestionLines => "lines of `{\"question\": \"…\", \"answer\": \"…\"}`",
            Self::TokenLines => "lines of `{\"tokens\": […]}`",
        })
    }
}

impl CalibrationFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    #[must_use]
    pub fn format(&self) -> CalibrationFormat {
        self.format
    }

    /// SHA-256 in hexadecimal of the bytes on disk, compressed if they are. Reads the whole file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sha256(&self) -> Result<String, Error> {
        let read = || -> io::Result<_> {
            let mut hash = Sha256::new();
            io::copy(&mut File::open(&self.path)?, &mut hash)?;
            Ok(hash.finalize())
        };
        Ok(format!("{:x}", read().map_err(|source| self.unreadable(source))?))
    }

    /// The record of what was drawn from this file, for an observation. Reads the whole file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn tag(&self, blocks: &TokenBlocks) -> Result<CorpusTag, Error> {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        Ok(CorpusTag {
            name: name.to_string_lossy().into_owned(),
            sha256: self.sha256()?,
            samples: blocks.blocks().len() as u64,
            sequence_len: blocks.sequence_len() as u64,
            seed: blocks.seed(),
            repeated: 1,
        })
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { path: self.path.clone(), source }
    }

    fn text(&self) -> Result<Document, Error> {
        let mut bytes = Vec::new();
        let reader = open(&self.path)?;
        reader
            .take(LONGEST_TEXT + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| self.unreadable(source))?;
        if bytes.len() as u64 > LONGEST_TEXT {
            return Err(Error::UnknownFormat {
                path: self.path.clone(),
                got: format!("a text of more than {LONGEST_TEXT} bytes"),
                remedy: "cut it into documents, one `{\"text\": ...}` a line",
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Document::text(text).at_line(1)),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                Err(Error::Line {
                    path: self.path.clone(),
                    line: 1 + valid.iter().filter(|&&b| b == b'\n').count() as u64,
                    expected: "UTF-8 text",
                    got: "bytes that are not".to_owned(),
                })
            }
        }
    }
}

impl CalibrationSource for CalibrationFile {
    fn documents(&self) -> Result<Documents<'_>, StageError> {
        if self.format == CalibrationFormat::PlainText {
            return Ok(Box::new(std::iter::once_with(|| Ok(self.text()?))));
        }
        let mut lines = Lines::open(&self.path)?;
        Ok(Box::new(std::iter::from_fn(move || {
            let (line, bytes) = match lines.next_line() {
                Ok(next) => next?,
                Err(error) => return Some(Err(error.into())),
            };
            let document = parse(self.format, bytes).map_err(|got| {
                let expected = expected(self.format);
                Error::Line { path: self.path.clone(), line, expected, got }.into()
            });
            lines.done |= document.is_err();
            Some(document.map(|document| document.at_line(line)))
        })))
    }

    fn name(&self) -> Cow<'_, str> {
        self.path.to_string_lossy()
    }
}

fn detect(path: &Path) -> Result<CalibrationFormat, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let unknown = |got: &str, remedy| {
        Err(Error::UnknownFormat { path: path.to_owned(), got: got.to_owned(), remedy })
    };
    let mut head = Vec::new();
    open(path)?.take(HEAD).read_to_end(&mut head).map_err(unreadable)?;
    for (magic, name) in FOREIGN {
        if head.starts_with(magic) {
            return unknown(name, "unpack or convert it first");
        }
    }
    let Some(first) = head.iter().position(|b| !b.is_ascii_whitespace()) else {
        return if (head.len() as u64) < HEAD {
            unknown("nothing", "it holds no text")
        } else {
            Ok(CalibrationFormat::PlainText)
        };
    };
    let mut rest = head[first..].iter().filter(|b| !b.is_ascii_whitespace());
    match (rest.next(), rest.next()) {
        (Some(b'{'), Some(b'"' | b'}') | None) => detect_lines(path),
        (Some(b'['), Some(b'{')) => {
            unknown("one JSON array", "write each of its objects on a line of its own")
        }
        _ => Ok(CalibrationFormat::PlainText),
    }
}

/// Files that people have calibration text in and that are not text.
const FOREIGN: [(&[u8], &str); 6] = [
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
];

fn detect_lines(path: &Path) -> Result<CalibrationFormat, Error> {
    let mut lines = Lines::open(path)?;
    let Some((line, bytes)) = lines.next_line()? else {
        return Ok(CalibrationFormat::PlainText);
    };
    let expected = "a JSON object with `text`, with `question` and `answer`, or with `tokens`";
    let wrong = |got| Error::Line { path: path.to_owned(), line, expected, got };
    let object: serde_json::Map<String, serde_json::Value> = json(bytes).map_err(wrong)?;
    let has = |key| object.contains_key(key);
    if has("tokens") {
        Ok(CalibrationFormat::TokenLines)
    } else if has("text") {
        Ok(CalibrationFormat::TextLines)
    } else if has("question") && has("answer") {
        Ok(CalibrationFormat::QuestionLines)
    } else if object.is_empty() {
        Err(wrong("one with no keys".to_owned()))
    } else {
        let keys: Vec<_> = object.keys().take(8).map(|k| format!("`{k:.40}`")).collect();
        Err(wrong(format!("one with {}", keys.join(", "))))
    }
}

fn expected(format: CalibrationFormat) -> &'static str {
    match format {
        CalibrationFormat::PlainText => "text",
        CalibrationFormat::TextLines => "`{\"text\": \"...\"}` as on the first line",
        CalibrationFormat::QuestionLines => {
            "`{\"question\": \"...\", \"answer\": \"...\"}` as on the first line"
        }
        CalibrationFormat::TokenLines => "`{\"tokens\": [...]}` as on the first line",
    }
}

fn parse(format: CalibrationFormat, line: &[u8]) -> Result<Document, String> {
    #[derive(Deserialize)]
    struct Text {
        text: String,
    }
    #[derive(Deserialize)]
    struct Question {
        question: String,
        answer: String,
    }
    #[derive(Deserialize)]
    struct Tokens {
        tokens: Vec<u32>,
    }
    Ok(match format {
        CalibrationFormat::PlainText | CalibrationFormat::TextLines => {
            Document::text(json::<Text>(line)?.text)
        }
        CalibrationFormat::QuestionLines => {
            let Question { question, answer } = json(line)?;
            Document::text(format!("Question: {question}\nAnswer: {answer}"))
        }
        CalibrationFormat::TokenLines => Document::tokens(json::<Tokens>(line)?.tokens),
    })
}

/// Parses one line; an error says the column only, as the line within the line is always 1.
fn json<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line.trim_ascii_end()).map_err(|error| {
        let text = error.to_string();
        let what = text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        format!("{what} at column {}", error.column())
    })
}

/// Opens a file, unpacks it if its first bytes say gzip, and skips a byte order mark.
fn open(path: &Path) -> Result<Box<dyn BufRead>, Error> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let open = || -> io::Result<Box<dyn BufRead>> {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut reader: Box<dyn BufRead> = if file.fill_buf()?.starts_with(GZIP) {
            Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(reader)
    };
    open().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The lines of a file that are not blank.
struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    done: bool,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Error> {
        let reader = open(path)?;
        Ok(Self { path: path.to_owned(), reader, line: Vec::new(), number: 0, done: false })
    }

    /// The next line and its number; `None` at the end and after an error.
    fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, Error> {
        while !self.done {
            self.line.clear();
            self.number += 1;
            let read = (&mut self.reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut self.line);
            let length = match read {
                Ok(length) => length as u64,
                Err(source) => {
                    self.done = true;
                    let got = format!("an error while reading it: {source}");
                    return Err(self.wrong("a whole line", got));
                }
            };
            if length > LONGEST_LINE {
                self.done = true;
                return Err(self.wrong("at most 256 MiB", "a longer line".to_owned()));
            }
            self.done = length == 0;
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some((self.number, &self.line)));
            }
        }
        Ok(None)
    }

    fn wrong(&self, expected: &'static str, got: String) -> Error {
        Error::Line { path: self.path.clone(), line: self.number, expected, got }
    }
}
