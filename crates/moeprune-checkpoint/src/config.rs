//! `config.json` as text with values that can be found, read, and replaced in place.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::value::RawValue;

use crate::{Error, json::Members, model_directory::ModelDirectory};

/// No config is near this; a larger file is something else.
const MAX_BYTES: u64 = 16 << 20;

/// No dimension of a model is near this; larger numbers are damage, and products of three below
/// it cannot overflow the arithmetic that follows the shape checks.
const MAX_INTEGER: u64 = 1 << 31;

/// The text of a `config.json` whose top level is known to be an object.
///
/// Keys are looked up in the object that the family's keys stand in: the top level, or the
/// [`within`](Self::within) of it. A key that begins with `/` is one of the top level always.
#[derive(Clone)]
pub(crate) struct Config {
    path: PathBuf,
    text: String,
    /// The text, byte for byte as long, in which infinite numbers are JSON ([`with_json_numbers`]).
    json: String,
    within: Option<String>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A value found under a key. Read as the type that is wanted and never as JSON of any kind, which
/// in memory is tens of times as long as its text.
pub(crate) struct Found<'a> {
    /// The key it was found under, dotted when nested.
    pub(crate) key: &'a str,
    /// Its JSON text.
    pub(crate) text: &'a str,
    /// Where that text stands in the file.
    span: Range<usize>,
}

impl Config {
    /// Reads a config of a model, if it has one of that name.
    pub(crate) fn read(directory: &ModelDirectory, name: &str) -> Result<Option<Self>, Error> {
        let path = &directory.path.join(name);
        let bytes = match directory.read(Path::new(name), MAX_BYTES + 1) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(Error::Weights { reason, .. }) => return Err(refuse(path, reason)),
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refuse(path, format!("is larger than {MAX_BYTES} bytes; not a config")));
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| refuse(path, format!("is not UTF-8 text ({})", e.utf8_error())))?;
        Self::of_text(path, text).map(Some)
    }

    /// A config with this text, of which messages say that it is in `path`.
    pub(crate) fn of_text(path: &Path, text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let json = with_json_numbers(&text);
        let config = Self { path: path.to_owned(), text, json, within: None };
        config.members(&config.json)?;
        Ok(config)
    }

    /// The same with keys looked up in the object under `key`, if a key is given.
    pub(crate) fn within(self, key: Option<&str>) -> Result<Self, Error> {
        let Some(key) = key else { return Ok(self) };
        if self.at(key)?.is_none_or(|found| !found.text.starts_with('{')) {
            return Err(self.refuse(format!("lacks the object `{key}`")));
        }
        Ok(Self { within: Some(key.to_owned()), ..self })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The text as JSON, byte for byte as long as the file.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The objects under any of these keys, at the top or in an object there.
    pub(crate) fn objects_under(&self, keys: &[&str]) -> Result<Vec<&str>, Error> {
        let top = self.members(&self.json)?;
        let mut found = Vec::new();
        for (key, value) in &top.0 {
            let text = value.get();
            if !text.starts_with('{') {
                continue;
            }
            if keys.contains(&key.as_str()) {
                found.push(text);
                continue;
            }
            let inner = self.members(text)?.0.into_iter();
            let objects = inner.filter(|(key, _)| keys.contains(&key.as_str()));
            found
                .extend(objects.map(|(_, value)| value.get()).filter(|text| text.starts_with('{')));
        }
        Ok(found)
    }

    /// The value under the first of `keys` that is there and not null; a dot descends into an
    /// object.
    ///
    /// Fails if another of the keys is there too and says something else.
    pub(crate) fn find<'a>(&'a self, keys: &'a [String]) -> Result<Option<Found<'a>>, Error> {
        let mut found: Option<Found<'_>> = None;
        for key in keys {
            let Some(next) = self.at(key)? else { continue };
            match &found {
                None => found = Some(next),
                Some(first) if same_json(first.text, next.text) => {}
                Some(first) => {
                    return Err(self.refuse(format!(
                        "`{}` is {} but `{}` is {}; they mean the same, so one must go",
                        first.key,
                        shown(first.text),
                        next.key,
                        shown(next.text)
                    )));
                }
            }
        }
        Ok(found)
    }

    /// The keys of the object under `key` that are not null; none if it is not there.
    pub(crate) fn members_of(&self, key: &str) -> Result<Vec<String>, Error> {
        let Some(found) = self.at(key)? else { return Ok(Vec::new()) };
        if !found.text.starts_with('{') {
            let got = shown(found.text);
            return Err(self.refuse(format!("`{key}` must be an object, got {got}")));
        }
        let members = self.members(found.text)?.0.into_iter();
        Ok(members.filter(|(_, value)| value.get() != "null").map(|(key, _)| key).collect())
    }

    /// The keys of the object that keys are looked up in which are not null.
    pub(crate) fn keys(&self) -> Result<Vec<String>, Error> {
        match &self.within {
            Some(within) => self.members_of(&format!("/{within}")),
            None => {
                let members = self.members(&self.json)?.0.into_iter();
                let stated = members.filter(|(_, value)| value.get() != "null");
                Ok(stated.map(|(key, _)| key).collect())
            }
        }
    }

    /// The text with the values under keys that are there replaced, for each list of keys by its
    /// value, and with other changes to its [`json`](Self::json); everything else stays as it was
    /// written.
    pub(crate) fn replaced(
        &self,
        changes: &[(&[String], &str)],
        others: Vec<(Range<usize>, String)>,
    ) -> Result<String, Error> {
        let mut spans = others;
        for (keys, value) in changes {
            for key in *keys {
                spans.extend(self.at(key)?.map(|found| (found.span, (*value).to_owned())));
            }
        }
        spans.sort_by_key(|(span, _)| span.start);
        spans.dedup();
        let mut text = self.text.clone();
        for (span, value) in spans.into_iter().rev() {
            text.replace_range(span, &value);
        }
        Ok(text)
    }

    pub(crate) fn refuse(&self, reason: String) -> Error {
        match &self.within {
            None => refuse(&self.path, reason),
            Some(within) => refuse(&self.path, format!("in `{within}`: {reason}")),
        }
    }

    fn at<'a>(&'a self, key: &'a str) -> Result<Option<Found<'a>>, Error> {
        let mut text = self.json.as_str();
        let (within, key_within) = match key.strip_prefix('/') {
            Some(of_top) => (None, of_top),
            None => (self.within.as_deref(), key),
        };
        for step in within.into_iter().chain(key_within.split('.')) {
            if !text.trim_start().starts_with('{') {
                return Ok(None);
            }
            match self.members(text)?.get(step) {
                None => return Ok(None),
                Some(value) => text = value.get(),
            }
        }
        if text == "null" {
            return Ok(None);
        }
        // A borrowed raw value is a part of the text it was parsed from.
        let start = text.as_ptr() as usize - self.json.as_ptr() as usize;
        Ok(Some(Found { key, text, span: start..start + text.len() }))
    }

    fn members<'a>(&self, text: &'a str) -> Result<Members<&'a RawValue>, Error> {
        serde_json::from_str(text).map_err(|e| self.refuse(format!("is not a JSON object: {e}")))
    }
}

/// The text with `Infinity`, which Python writes outside of what JSON knows, as a number of as many
/// characters that is too large for any type.
fn with_json_numbers(text: &str) -> String {
    const WORD: &str = "Infinity";
    const NUMBER: &str = "1.0e9999";
    let mut json = String::with_capacity(text.len());
    let (mut in_string, mut escaped, mut skip) = (false, false, 0);
    for (at, c) in text.char_indices() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        if !in_string && text[at..].starts_with(WORD) {
            json.push_str(NUMBER);
            skip = WORD.len() - 1;
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        json.push(c);
    }
    json
}

fn refuse(path: &Path, reason: String) -> Error {
    Error::Config { path: path.to_owned(), reason }
}

/// A type a config value can be read as.
pub(crate) trait ConfigValue: Sized {
    /// What to call it in a message.
    const EXPECTED: &'static str;

    fn from_json(text: &str) -> Option<Self>;
}

impl ConfigValue for usize {
    const EXPECTED: &'static str = "a whole number from 1 to 2147483648";

    fn from_json(text: &str) -> Option<Self> {
        let value: u64 = serde_json::from_str(text).ok()?;
        (1..=MAX_INTEGER).contains(&value).then(|| Self::try_from(value).ok())?
    }
}

impl ConfigValue for f64 {
    const EXPECTED: &'static str = "a positive number";

    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|v: &Self| v.is_finite() && *v > 0.0)
    }
}

impl ConfigValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl ConfigValue for String {
    const EXPECTED: &'static str = "a string";

    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Found<'_> {
    /// The value as `T`, or an error that says what was expected and found.
    pub(crate) fn read<T: ConfigValue>(&self, config: &Config) -> Result<T, Error> {
        T::from_json(self.text).ok_or_else(|| {
            config.refuse(format!(
                "`{}` must be {}, got {}",
                self.key,
                T::EXPECTED,
                shown(self.text)
            ))
        })
    }
}

/// A JSON text short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Whether two texts are the same value, of the types that a config is read for.
pub(crate) fn same_json(a: &str, b: &str) -> bool {
    fn same<'de, T: serde::Deserialize<'de> + PartialEq>(a: &'de str, b: &'de str) -> bool {
        let parse = |text| serde_json::from_str::<T>(text).ok();
        parse(a).is_some_and(|a| parse(b) == Some(a))
    }
    a == b
        || same::<f64>(a, b)
        || same::<String>(a, b)
        || same::<Vec<u64>>(a, b)
        || same::<Vec<AnyFloat>>(a, b)
}

/// A number that may be infinite: too large for its type, or `{"__float__": "Infinity"}`.
#[derive(PartialEq)]
struct AnyFloat(f64);

impl<'de> serde::Deserialize<'de> for AnyFloat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Spelled {
            #[serde(rename = "__float__")]
            float: String,
        }
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let spelled = || serde_json::from_str::<Spelled>(text).ok()?.float.parse().ok();
        let value = text.parse().ok().or_else(spelled);
        value.map(Self).ok_or_else(|| serde::de::Error::custom("no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_numbers() {
        let check = |text: &str, expected: &str| {
            assert_eq!(with_json_numbers(text), expected);
            assert_eq!(text.len(), expected.len());
        };
        check(r#"{"a": [0.0, Infinity]}"#, r#"{"a": [0.0, 1.0e9999]}"#);
        check(r#"{"a": -Infinity}"#, r#"{"a": -1.0e9999}"#);
        check(r#"{"Infinity": "an \" Infinity"}"#, r#"{"Infinity": "an \" Infinity"}"#);
        check(r#"{"a\\": Infinity, "ä": 1}"#, r#"{"a\\": 1.0e9999, "ä": 1}"#);
    }

    #[test]
    fn values_that_are_the_same() {
        let check = |a: &str, b: &str, expected: bool| assert_eq!(same_json(a, b), expected);
        check("1e-5", "0.00001", true);
        check("[0.0, 1.0e9999]", r#"[0, {"__float__": "Infinity"}]"#, true);
        check("[0.0, 1.0e9999]", "[0.0, 100.0]", false);
        check("[0.0, 1.0e9999]", r#"[0.0, {"__float__": "-Infinity"}]"#, false);
    }
}
