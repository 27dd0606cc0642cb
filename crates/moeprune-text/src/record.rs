//! One record of a text.

use std::fmt;

use serde_json::{Map, Value};

/// A record and where it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Where it is, or begins.
    pub place: Place,
    /// What it holds.
    pub content: Content,
}

/// Where a record is in its file, from 1. Shown as in "line 3".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A line: of JSON lines, of CSV (where a row begins), or where a piece of plain text begins.
    Line(u64),
    /// An item of a JSON array, or one of several objects.
    Item(u64),
    /// A row of a Parquet file.
    Row(u64),
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A whole document.
    Text(String),
    /// A piece of the one document that a plain text is. Pieces joined are the text, without its byte order mark.
    Piece {
        /// About a mebibyte of it, cut between characters.
        text: String,
        /// Whether it is the last one.
        last: bool,
    },
    /// A question and its reference answer.
    Question {
        /// The question.
        question: String,
        /// The answer, worked steps included.
        answer: String,
    },
    /// An object, as it stands: an item of a data set.
    Row(Map<String, Value>),
    /// A document that is tokenised already.
    Tokens(Vec<u32>),
    /// A conversation, which a model's chat template makes text of.
    Conversation(Conversation),
}

/// Messages in the form that chat templates are written for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Conversation {
    /// At least one object with `role` (a string) and, unless it calls tools, `content` (a string or a list of parts).
    ///
    /// Further keys are kept, arguments of tool calls as they are. Keys with null are left out, `content` apart.
    pub messages: Vec<Value>,
    /// A list of the tools that may be called.
    pub tools: Option<Value>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Item(n) => write!(f, "item {n}"),
            Self::Row(n) => write!(f, "row {n}"),
        }
    }
}
