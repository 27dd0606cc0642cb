//! What a file of text holds.

use std::fmt;

/// What a file holds: how its records follow each other, what each of them is, and what it is packed with.
///
/// Shown as in "JSON lines of `messages`, gzipped".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// How records follow each other.
    pub container: Container,
    /// What each record is.
    pub shape: Shape,
    /// What the file is packed with.
    pub compression: Option<Compression>,
}

/// How the records of a file follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// No records: the whole file is one text.
    PlainText,
    /// One JSON value per line.
    JsonLines,
    /// JSON objects one after another, each over several lines, as indented output is.
    JsonObjects,
    /// One JSON array, whose items are the records.
    JsonArray,
    /// Rows of comma-separated values below a row of names.
    Csv,
    /// Rows of tab-separated values below a row of names.
    Tsv,
    /// Rows of a Parquet file.
    Parquet,
}

/// What the records of a file are. The first one decides, and all must then be the same; keys that are not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shape {
    /// Pieces of one plain text.
    Pieces,
    /// `{"text": "…"}`, one document, as C4 is distributed; or a string under another key that the caller chose.
    Text {
        /// The key.
        key: String,
    },
    /// A string, which is one document.
    Strings,
    /// `{"question": "…", "answer": "…"}`, as GSM8K is distributed.
    QuestionAnswer,
    /// An object of any keys, which is read whole: an item of a data set.
    Row,
    /// `{"tokens": [1, 2, …]}`, or that list by itself: a document that is tokenised already.
    Tokens,
    /// `{"messages": [{"role": "…", "content": "…"}, …]}`, also with `tools`, or that list by itself.
    Messages,
    /// `{"conversations": [{"from": "human", "value": "…"}, …]}`, also with `system` and `tools`.
    ShareGpt,
    /// `{"instruction": "…", "input": "…", "output": "…"}`, also with `system` and `history`.
    Alpaca,
    /// `{"prompt": …, "completion": …}`, each a string or a list of messages.
    PromptCompletion,
}

/// What a file is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.container {
            Container::PlainText => f.write_str("plain text")?,
            container => write!(f, "{container} of {}", self.shape)?,
        }
        match self.compression {
            None => Ok(()),
            Some(Compression::Gzip) => f.write_str(", gzipped"),
            Some(Compression::Zstd) => f.write_str(", packed by zstd"),
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainText => "plain text",
            Self::JsonLines => "JSON lines",
            Self::JsonObjects => "JSON objects",
            Self::JsonArray => "a JSON array",
            Self::Csv => "CSV rows",
            Self::Tsv => "TSV rows",
            Self::Parquet => "Parquet rows",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pieces => "text",
            Self::Text { key } => return write!(f, "`{key}`"),
            Self::Strings => "strings",
            Self::QuestionAnswer => "`question` and `answer`",
            Self::Row => "rows",
            Self::Tokens => "`tokens`",
            Self::Messages => "`messages`",
            Self::ShareGpt => "`conversations`",
            Self::Alpaca => "`instruction` and `output`",
            Self::PromptCompletion => "`prompt` and `completion`",
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
