//! `config.json` as text with values that can be found, read, and replaced in place.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::value::RawValue;

use crate::{
    Error,
    json::{JsonText, Members},
    model_directory::ModelDirectory,
    number::{MAX_INTEGER, real, spelled_like, switch, whole},
};

/// No config is near this; a larger file is something else.
const MAX_BYTES: u64 = 16 << 20;

/// The text of a `config.json` whose top level is known to be an object.
///
/// Keys are looked up in the object that the family's keys stand in: the top level, or the
/// [`within`](Self::within) of it. A key that begins with `/` is one of the top level always.
#[derive(Clone)]
pub(crate) struct Config {
    path: PathBuf,
    text: JsonText,
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
    /// The same as it is written in the file.
    written: &'a str,
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
        let text = JsonText::of_bytes(bytes).map_err(|reason| refuse(path, reason))?;
        Ok(Some(Self { path: path.clone(), text, within: None }))
    }

    /// A config with this text, of which messages say that it is in `path`.
    pub(crate) fn of_text(path: &Path, text: impl Into<String>) -> Result<Self, Error> {
        let text = JsonText::of_text(text.into()).map_err(|reason| refuse(path, reason))?;
        Ok(Self { path: path.to_owned(), text, within: None })
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
        self.text.text()
    }

    /// The text as JSON, byte for byte as long as the file.
    pub(crate) fn json(&self) -> &str {
        self.text.json()
    }

    /// The objects under any of these keys, at the top or in an object there.
    pub(crate) fn objects_under(&self, keys: &[&str]) -> Result<Vec<&str>, Error> {
        let top = self.members(self.json())?;
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
                        first.shown(),
                        next.key,
                        next.shown()
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
            let got = found.shown();
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
                let members = self.members(self.json())?.0.into_iter();
                let stated = members.filter(|(_, value)| value.get() != "null");
                Ok(stated.map(|(key, _)| key).collect())
            }
        }
    }

    /// The text with the values under keys that are there replaced, for each list of keys by its
    /// count or list of counts in the spelling that they had, and with other changes to its
    /// [`json`](Self::json); everything else stays as it was written.
    pub(crate) fn replaced(
        &self,
        changes: &[(&[String], &str)],
        others: Vec<(Range<usize>, String)>,
    ) -> Result<String, Error> {
        let mut spans = others;
        for (keys, value) in changes {
            for key in *keys {
                let Some(found) = self.at(key)? else { continue };
                if whole(found.text).is_none() || whole(found.text) != whole(value) {
                    spans.push((found.span, spelled_like(found.written, value)));
                }
            }
        }
        spans.sort_by_key(|(span, _)| span.start);
        spans.dedup();
        let mut text = self.text().to_owned();
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
        let mut text = self.json();
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
        let start = text.as_ptr() as usize - self.json().as_ptr() as usize;
        let span = start..start + text.len();
        let written = &self.text()[span.clone()];
        Ok(Some(Found { key, text, written, span }))
    }

    fn members<'a>(&self, text: &'a str) -> Result<Members<&'a RawValue>, Error> {
        serde_json::from_str(text).map_err(|e| self.refuse(format!("is not a JSON object: {e}")))
    }
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
        let value = whole(text)?;
        (1..=MAX_INTEGER).contains(&value).then(|| Self::try_from(value).ok())?
    }
}

impl ConfigValue for f64 {
    const EXPECTED: &'static str = "a positive number";

    fn from_json(text: &str) -> Option<Self> {
        real(text).filter(|v| v.is_finite() && *v > 0.0)
    }
}

impl ConfigValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_json(text: &str) -> Option<Self> {
        switch(text)
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
        let value = if self.is_nan() { None } else { T::from_json(self.text) };
        value.ok_or_else(|| {
            let (key, got) = (self.key, self.shown());
            config.refuse(format!("`{key}` must be {}, got {got}", T::EXPECTED))
        })
    }

    /// The value as it is written, short enough for a message.
    pub(crate) fn shown(&self) -> String {
        shown(self.written)
    }

    /// Whether it is NaN, which is no value of any type here.
    fn is_nan(&self) -> bool {
        self.written == "NaN"
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
    let same_number = || real(a).is_some_and(|number| real(b) == Some(number));
    let same_switch = || {
        let is_word =
            |text: &str| !text.trim_matches('"').starts_with(|c: char| c.is_ascii_digit());
        (is_word(a) || is_word(b)) && switch(a).is_some_and(|set| switch(b) == Some(set))
    };
    a == b
        || same_number()
        || same_switch()
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
    fn values_that_are_the_same() {
        let check = |a: &str, b: &str, expected: bool| assert_eq!(same_json(a, b), expected);
        check("1e-5", "0.00001", true);
        check("[0.0, 1.0e9999]", r#"[0, {"__float__": "Infinity"}]"#, true);
        check("[0.0, 1.0e9999]", "[0.0, 100.0]", false);
        check("[0.0, 1.0e9999]", r#"[0.0, {"__float__": "-Infinity"}]"#, false);
        check("8", "\"8.0\"", true);
        check("8", "\"9\"", false);
        check("true", "\"True\"", true);
        check("true", "1", true);
        check("true", "0", false);
        check("\"a\"", "\"a\"", true);
    }
}
