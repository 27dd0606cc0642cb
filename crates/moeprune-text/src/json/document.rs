//! One JSON value, read key by key, so that what is not read costs nothing and is not judged.

use std::{borrow::Cow, fmt};

use moeprune_json::{Special, replaced, specials};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// What is wrong with a value, with its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// Where a document's first byte is, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It has a line of its own: messages say the column.
    Line,
    /// It begins at this line and column, from 1: messages say both.
    At { line: u64, column: u64 },
    /// It was made from something that has no columns.
    Nowhere,
}

/// The bytes of one JSON value, in which NaN, Infinity and -Infinity, which Python's json writes, stand for numbers.
pub(crate) struct Document<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where numbers were that JSON does not have, and which. They are replaced by numbers of the same length.
    specials: Vec<(usize, &'static str)>,
    origin: Origin,
}

impl<'a> Document<'a> {
    /// Checks that `bytes` are one JSON value.
    pub(crate) fn new(bytes: &'a [u8], origin: Origin) -> Result<Self, Wrong> {
        let mut document = Self { bytes: bytes.into(), specials: Vec::new(), origin };
        let Err(error) = serde_json::from_slice::<&RawValue>(&document.bytes) else {
            return Ok(document);
        };
        let (replaced, specials) = without_specials(bytes);
        if specials.is_empty() {
            return Err(document.wrong_at(0, &error));
        }
        document.bytes = replaced.into();
        match serde_json::from_slice::<&RawValue>(&document.bytes) {
            Ok(_) => Ok(Self { specials, ..document }),
            Err(error) => Err(document.wrong_at(0, &error)),
        }
    }

    /// The value.
    pub(crate) fn root(&self) -> Node<'_> {
        let text = str::from_utf8(&self.bytes).unwrap_or("null").trim_ascii();
        Node { text, document: self }
    }

    /// An error of serde_json that was met in the value at byte `start`.
    fn wrong_at(&self, start: usize, error: &serde_json::Error) -> Wrong {
        let text = error.to_string();
        let what = text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let value = &self.bytes[start..];
        let lines = value.split_inclusive(|&b| b == b'\n').take(error.line().saturating_sub(1));
        let offset = start + lines.map(<[u8]>::len).sum::<usize>() + error.column();
        Wrong(format!("{what}{}", self.position(offset)))
    }

    /// The place before byte `offset`, in words.
    fn position(&self, offset: usize) -> String {
        let before = &self.bytes[..offset.min(self.bytes.len())];
        let breaks = before.iter().filter(|&&b| b == b'\n').count() as u64;
        let in_line = before.iter().rev().take_while(|&&b| b != b'\n').count() as u64;
        match self.origin {
            Origin::Nowhere => String::new(),
            Origin::Line => format!(" at column {in_line}"),
            Origin::At { line, column } => {
                let column = if breaks == 0 { column - 1 + in_line } else { in_line };
                format!(" at line {} column {column}", line + breaks)
            }
        }
    }
}

/// `bytes` with numbers that JSON has in the place of those that it does not have, and where that was.
fn without_specials(bytes: &[u8]) -> (Vec<u8>, Vec<(usize, &'static str)>) {
    let found = specials(bytes).map(|(at, special)| (at, special.word())).collect();
    (replaced(bytes, same_length).into_owned(), found)
}

/// A number that is written in as many characters.
fn same_length(special: Special) -> &'static str {
    match special {
        Special::NaN => "0.0",
        Special::Infinity => "0.000000",
        Special::NegativeInfinity => "-0.000000",
    }
}

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        })
    }
}

/// A value within a document, as its text.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    text: &'a str,
    document: &'a Document<'a>,
}

impl<'a> Node<'a> {
    pub(crate) fn kind(self) -> Kind {
        match self.text.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') | None => Kind::Null,
            _ => Kind::Number,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The entries of an object, in order.
    pub(crate) fn object(self) -> Result<Vec<(String, Self)>, Wrong> {
        let Entries(entries) = self.parse()?;
        let node = |text: &'a RawValue| Node { text: text.get(), document: self.document };
        Ok(entries.into_iter().map(|(key, text)| (key, node(text))).collect())
    }

    /// The items of an array.
    pub(crate) fn array(self) -> Result<Vec<Self>, Wrong> {
        let items: Vec<&'a RawValue> = self.parse()?;
        Ok(items.into_iter().map(|item| Node { text: item.get(), ..self }).collect())
    }

    /// The first item of an array that has one.
    pub(crate) fn first(self) -> Option<Self> {
        self.array().ok()?.into_iter().next()
    }

    pub(crate) fn string(self) -> Result<String, Wrong> {
        if self.is_null() {
            let what = "null in place of a string; leave the record out, or write an empty string";
            return Err(self.wrong(what));
        }
        self.whole()
    }

    pub(crate) fn ids(self) -> Result<Vec<u32>, Wrong> {
        self.whole()
    }

    pub(crate) fn value(self) -> Result<Value, Wrong> {
        self.whole()
    }

    /// A NaN or an infinity somewhere in it.
    pub(crate) fn special(self) -> Option<&'static str> {
        let range = self.start()..self.start() + self.text.len();
        let found = self.document.specials.iter().find(|(at, _)| range.contains(at));
        found.map(|&(_, word)| word)
    }

    /// `what`, with the place at which the value ends.
    pub(crate) fn wrong_at_end(self, what: impl fmt::Display) -> Wrong {
        let end = self.start() + self.text.len();
        Wrong(format!("{what}{}", self.document.position(end)))
    }

    /// `what`, with the place at which the value begins.
    pub(crate) fn wrong(self, what: impl fmt::Display) -> Wrong {
        Wrong(format!("{what}{}", self.document.position(self.start() + 1)))
    }

    fn whole<T: DeserializeOwned>(self) -> Result<T, Wrong> {
        match self.special() {
            Some(word) => Err(self.wrong(word)),
            None => self.parse(),
        }
    }

    fn parse<T: Deserialize<'a>>(self) -> Result<T, Wrong> {
        serde_json::from_str(self.text)
            .map_err(|error| self.document.wrong_at(self.start(), &error))
    }

    /// Where in the document it is: nodes are slices of its bytes.
    fn start(self) -> usize {
        self.text.as_ptr() as usize - self.document.bytes.as_ptr() as usize
    }
}

/// The entries of an object, in order.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
