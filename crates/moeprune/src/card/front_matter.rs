//! What the card of a base says of itself in its front matter, and a front matter that is written.

use std::{borrow::Cow, fs::File, io::Read as _, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Keys whose values hold for the pruned model as for its base, in the order in which they are written.
const KEPT: [&str; 5] = ["language", "license", "license_name", "license_link", "pipeline_tag"];

/// The key that names what a model was made of: of a base's card, the base's own base.
const ANCESTORS: &str = "base_model";

/// Bytes of a card that are read.
const MOST: u64 = 1 << 20;

/// Characters of a value, and values of a list.
const LONGEST: usize = 500;

/// Values in values.
const DEEPEST: isize = 100;

/// The card of the model that was pruned.
#[derive(Debug, PartialEq)]
pub(super) enum BaseCard {
    /// There is none.
    Missing,
    /// It cannot be understood.
    Unclear(String),
    /// What it says.
    Read(FrontMatter),
}

/// What is taken from a front matter.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    /// Keys that are kept, each with its value.
    pub(super) kept: Vec<(&'static str, FrontValue)>,
    /// What the base says that it was made of.
    pub(super) ancestors: Vec<String>,
    /// Keys that would have been kept, and whose values are no texts or stand there twice.
    pub(super) passed_over: Vec<&'static str>,
}

/// A value of a front matter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FrontValue {
    /// A text.
    One(String),
    /// A list of texts.
    Many(Vec<String>),
}

impl BaseCard {
    /// Reads the card at a path. It is another's file: nothing in it is an error.
    pub(super) fn read(path: &Path) -> Self {
        if !path.is_file() {
            return Self::Missing;
        }
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::of(&bytes),
            Err(e) => Self::Unclear(format!("cannot be read: {e}")),
        }
    }

    /// The card that begins with these bytes.
    fn of(bytes: &[u8]) -> Self {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // A character may be cut at the end of what is read.
            Err(e) if e.error_len().is_none() && bytes.len() as u64 == MOST => {
                std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Self::Unclear("is not UTF-8".to_owned()),
        };
        let front = match front_of(text) {
            None => return Self::Read(FrontMatter::default()),
            Some(front) => front,
        };
        let Some(front) = front else {
            return Self::Unclear(format!(
                "has a front matter without an end in its first {MOST} bytes"
            ));
        };
        match FrontMatter::parse(front) {
            Ok(front) => Self::Read(front),
            Err(why) => Self::Unclear(format!("has a front matter that cannot be read: {why}")),
        }
    }
}

/// The lines between the first two `---`, `None` if a text does not begin with one, `Some(None)` if there is no second.
fn front_of(text: &str) -> Option<Option<&str>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let is_mark = |line: &str| line.trim_end() == "---";
    let mut lines = text.split_inclusive(['\n', '\r']);
    let first = lines.next().filter(|line| is_mark(line))?;
    let mut end = first.len();
    for line in lines {
        if is_mark(line) {
            return Some(Some(&text[first.len()..end]));
        }
        end += line.len();
    }
    Some(None)
}

impl FrontMatter {
    /// Reads YAML by its events, so that aliases are not expanded and nothing nests here.
    fn parse(text: &str) -> Result<Self, String> {
        let mut events = Events(Parser::new_from_str(text));
        let mut front = Self::default();
        let mut seen: Vec<&'static str> = Vec::new();
        match events.content()? {
            // Nothing stands there but comments.
            None => return Ok(front),
            Some(Event::MappingStart(..)) => {}
            Some(_) => return Err("it is no list of keys".to_owned()),
        }
        loop {
            let key = match events.next()? {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => Some(key),
                other => events.pass(&other).map(|()| None)?,
            };
            let value = events.value()?;
            let known =
                KEPT.into_iter().chain([ANCESTORS]).find(|known| key.as_deref() == Some(*known));
            let Some(key) = known else { continue };
            if seen.contains(&key) {
                front.pass_over(key);
                continue;
            }
            seen.push(key);
            match value {
                Found::Nothing => {}
                Found::Other => front.pass_over(key),
                Found::Texts(FrontValue::One(text)) if key == ANCESTORS => {
                    front.ancestors = vec![text]
                }
                Found::Texts(FrontValue::Many(texts)) if key == ANCESTORS => {
                    front.ancestors = texts
                }
                Found::Texts(texts) => front.kept.push((key, texts)),
            }
        }
        while !matches!(events.next()?, Event::StreamEnd) {}
        front.kept.sort_by_key(|(key, _)| KEPT.iter().position(|known| known == key));
        Ok(front)
    }

    fn pass_over(&mut self, key: &'static str) {
        self.kept.retain(|(kept, _)| *kept != key);
        if key == ANCESTORS {
            self.ancestors.clear();
        } else if !self.passed_over.contains(&key) {
            self.passed_over.push(key);
        }
    }

    /// The value of a key that is kept.
    pub(super) fn get(&self, key: &str) -> Option<&FrontValue> {
        self.kept.iter().find(|(kept, _)| *kept == key).map(|(_, value)| value)
    }
}

/// What a value is.
enum Found {
    /// It is null.
    Nothing,
    /// Text, or a list of it.
    Texts(FrontValue),
    /// Anything else, or more than is taken.
    Other,
}

/// Events of a parser that ends with an error rather than in the middle.
struct Events<'t>(Parser<'t, saphyr_parser::StrInput<'t>>);

impl<'t> Events<'t> {
    fn next(&mut self) -> Result<Event<'t>, String> {
        match self.0.next() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(e)) => Err(e.to_string()),
            None => Err("it ends too early".to_owned()),
        }
    }

    /// The first event of the first document; `None` if there is none.
    fn content(&mut self) -> Result<Option<Event<'t>>, String> {
        loop {
            match self.next()? {
                Event::StreamEnd => return Ok(None),
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                other => return Ok(Some(other)),
            }
        }
    }

    /// Passes the rest of what an event begins.
    fn pass(&mut self, begun: &Event<'_>) -> Result<(), String> {
        let mut depth = depth_of(begun);
        while depth > 0 {
            depth += depth_of(&self.next()?);
            if depth > DEEPEST {
                return Err("it nests too deeply".to_owned());
            }
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Found, String> {
        match self.next()? {
            Event::Scalar(text, ScalarStyle::Plain, ..) if is_null(&text) => Ok(Found::Nothing),
            Event::Scalar(text, ..) if text.chars().nth(LONGEST).is_some() => Ok(Found::Other),
            Event::Scalar(text, ..) => Ok(Found::Texts(FrontValue::One(text.into_owned()))),
            Event::SequenceStart(..) => self.list(),
            other => self.pass(&other).map(|()| Found::Other),
        }
    }

    fn list(&mut self) -> Result<Found, String> {
        let (mut texts, mut is_plain) = (Vec::new(), true);
        loop {
            match self.next()? {
                Event::SequenceEnd => break,
                Event::Scalar(text, ..) if texts.len() < LONGEST => {
                    is_plain &= text.chars().nth(LONGEST).is_none();
                    texts.push(text.into_owned());
                }
                other => {
                    self.pass(&other)?;
                    is_plain = false;
                }
            }
        }
        Ok(if is_plain { Found::Texts(FrontValue::Many(texts)) } else { Found::Other })
    }
}

fn depth_of(event: &Event<'_>) -> isize {
    match event {
        Event::SequenceStart(..) | Event::MappingStart(..) => 1,
        Event::SequenceEnd | Event::MappingEnd => -1,
        _ => 0,
    }
}

fn is_null(text: &str) -> bool {
    ["", "~", "null", "Null", "NULL"].contains(&text)
}

/// A line, or several, of a front matter.
pub(super) fn entry(key: &str, value: &FrontValue) -> String {
    match value {
        FrontValue::One(text) => format!("{key}: {}\n", scalar(text)),
        FrontValue::Many(texts) if texts.is_empty() => String::new(),
        FrontValue::Many(texts) => {
            let items = texts.iter().map(|text| format!("- {}\n", scalar(text)));
            format!("{key}:\n{}", items.collect::<String>())
        }
    }
}

/// A text that is no text to some reader of YAML if it stands there plainly: `no` is false in version 1.1.
const OTHERWISE: [&str; 9] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null"];

/// A text as YAML of versions 1.1 and 1.2 reads it back.
fn scalar(text: &str) -> Cow<'_, str> {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if is_word && !OTHERWISE.iter().any(|other| text.eq_ignore_ascii_case(other)) {
        return text.into();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c if u32::from(c) <= 0xffff => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted.into()
}

#[cfg(test)]
mod tests;
