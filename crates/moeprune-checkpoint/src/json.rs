//! JSON as people have it: what Python writes beyond JSON is read, what is ambiguous is refused.
//!
//! Parsers differ in which of two equal keys wins; a file that relies on it means different things
//! to different readers, so it is refused.

use std::{collections::BTreeSet, fmt, marker::PhantomData};

use moeprune_files::StandIn;
use moeprune_json::{Special, specials};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The text of a file, and the same as JSON.
#[derive(Clone)]
pub(crate) struct JsonText {
    text: String,
    /// The text, byte for byte as long, in which a byte order mark is space, infinite numbers are too large for
    /// any type, and NaN is [`NAN`]; `None` if it has none of these.
    json: Option<String>,
}

/// What stands for NaN, which is a string of as many characters: no number, so nothing takes it for one.
pub(crate) const NAN: &str = "\"N\"";

impl JsonText {
    /// The text of a file with an object.
    ///
    /// The error says what is wrong, to follow the file's name.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        Self::decoded(bytes)?.checked()
    }

    /// As [`of_bytes`](Self::of_bytes), of text.
    pub(crate) fn of_text(text: String) -> Result<Self, String> {
        Self::decoded(text.into_bytes())?.checked()
    }

    /// The text of a file that is not looked into yet.
    pub(crate) fn decoded(bytes: Vec<u8>) -> Result<Self, String> {
        if let Some(stand_in) = StandIn::of(&bytes[..bytes.len().min(StandIn::BYTES)]) {
            return Err(stand_in.to_string());
        }
        if is_utf16(&bytes) {
            return Err("is UTF-16 text; save it as UTF-8".to_owned());
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| format!("is not UTF-8 text ({})", e.utf8_error()))?;
        if is_too_deep(&text) {
            return Err(format!(
                "is not a JSON object of a model: it has values in more than {DEEPEST} others"
            ));
        }
        let json = as_json(&text);
        Ok(Self { text, json })
    }

    fn checked(self) -> Result<Self, String> {
        check_object(self.json(), 0..self.text.len())?;
        Ok(self)
    }

    /// As it stands in the file.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// As JSON, byte for byte as long.
    pub(crate) fn json(&self) -> &str {
        self.json.as_deref().unwrap_or(&self.text)
    }
}

/// How many objects and lists a value may be in: each is gone into by a call of its own.
const DEEPEST: usize = 128;

/// Whether a text, JSON or nearly so, has a value that is in more objects and lists than is read.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            b'"' if !escaped => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        escaped = in_string && byte == b'\\' && !escaped;
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

/// Text in UTF-16 has a mark, or zeros in the place of every other character of JSON.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..])
}

/// The text with what Python writes outside of what JSON knows in other words of as many characters; `None` if it
/// has none of that.
fn as_json(text: &str) -> Option<String> {
    let mut found = specials(text.as_bytes()).peekable();
    let after_mark = text.strip_prefix('\u{feff}');
    if after_mark.is_none() && found.peek().is_none() {
        return None;
    }
    let mut json = String::with_capacity(text.len());
    let mut copied = 0;
    if let Some(after) = after_mark {
        copied = text.len() - after.len();
        json.push_str("   ");
    }
    for (at, special) in found {
        json.push_str(&text[copied..at]);
        json.push_str(match special {
            Special::NaN => NAN,
            Special::Infinity => "1.0e9999",
            Special::NegativeInfinity => "-1.0e9999",
        });
        copied = at + special.word().len();
    }
    json.push_str(&text[copied..]);
    Some(json)
}

/// Checks a part of a text that is to be an object, and all objects in it, for what JSON does not know and for
/// keys that are repeated.
fn check_object(json: &str, part: std::ops::Range<usize>) -> Result<(), String> {
    let members: Members<&RawValue> =
        serde_json::from_str(&json[part.clone()]).map_err(|e| explained(json, part.start, &e))?;
    members.0.iter().try_for_each(|(_, value)| check_value(json, value.get()))
}

fn check_value(json: &str, value: &str) -> Result<(), String> {
    // A borrowed raw value is a part of the text it was parsed from.
    let start = value.as_ptr() as usize - json.as_ptr() as usize;
    if value.starts_with('{') {
        check_object(json, start..start + value.len())
    } else if value.starts_with('[') && value.contains('{') {
        let items: Vec<&RawValue> =
            serde_json::from_str(value).map_err(|e| explained(json, start, &e))?;
        items.into_iter().try_for_each(|item| check_value(json, item.get()))
    } else {
        Ok(())
    }
}

/// What is wrong with a text, of which the part from `start` on was parsed, and where.
pub(crate) fn explained(json: &str, start: usize, error: &serde_json::Error) -> String {
    let before: usize = json[start..]
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let at = (start + before + error.column().saturating_sub(1)).min(json.len());
    let before = &json.as_bytes()[..at];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = at - before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1) + 1;
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said);
    let rest = String::from_utf8_lossy(&json.as_bytes()[at..]);
    let begins = |words: &[&str]| words.iter().any(|word| rest.starts_with(word));
    let closes = begins(&["]", "}"]);
    let what = if begins(&["//", "/*", "#"]) {
        "there is a comment, which JSON has not; remove it"
    } else if said == "trailing comma" || closes && before.trim_ascii_end().ends_with(b",") {
        "there is a comma before the bracket that closes; remove it"
    } else if begins(&["'"]) {
        "there is a string in single quotes; JSON has double quotes"
    } else if begins(&["None", "True", "False"]) {
        "there is a word of Python's; in JSON it is null, true or false"
    } else {
        said
    };
    format!("is not a JSON object: {what} at line {line} column {column}")
}

/// A value of any kind, in which numbers that are too large for any type are null.
pub(crate) fn value(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|error| {
        if text.starts_with('{') {
            let Members(members) = serde_json::from_str::<Members<&RawValue>>(text)?;
            let member = |(key, inner): (String, &RawValue)| Ok((key, value(inner.get())?));
            return members.into_iter().map(member).collect::<Result<_, _>>().map(Value::Object);
        }
        if text.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items = items.into_iter().map(|item| value(item.get()));
            return items.collect::<Result<_, _>>().map(Value::Array);
        }
        serde_json::from_str::<&RawValue>(text).map(|_| Value::Null).map_err(|_| error)
    })
}

/// The members of an object in the order of the text.
pub(crate) struct Members<V>(pub(crate) Vec<(String, V)>);

impl<V> Members<V> {
    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Members<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for MembersVisitor<V> {
    type Value = Members<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<V>, A::Error> {
        let mut seen = BTreeSet::new();
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{key}` appears twice")));
            }
            members.push((key, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_python_writes() {
        let check = |text: &str, expected: &str| {
            assert_eq!(as_json(text).as_deref().unwrap_or(text), expected);
            assert_eq!(text.len(), expected.len());
        };
        check(r#"{"a": [0.0, Infinity]}"#, r#"{"a": [0.0, 1.0e9999]}"#);
        check(r#"{"a": -Infinity}"#, r#"{"a": -1.0e9999}"#);
        check(r#"{"Infinity": "an \" Infinity, NaN"}"#, r#"{"Infinity": "an \" Infinity, NaN"}"#);
        check(r#"{"a\\": Infinity, "ä": NaN}"#, r#"{"a\\": 1.0e9999, "ä": "N"}"#);
        check("\u{feff}{}", "   {}");
    }

    #[test]
    fn what_is_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let Err(error) = JsonText::of_bytes(bytes.to_vec()) else {
                panic!("{bytes:?} is read")
            };
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "is empty");
        check(b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer");
        check(b"\n <!DOCTYPE html>\n<html>", "is a web page");
        check(b"Entry not found", "what a server answered");
        check(b"\xff\xfe{\0}\0", "UTF-16");
        check(b"{\0}\0", "UTF-16");
        check(b"\0{\0}", "UTF-16");
        check(b"{\"a\": \"\xff\"}", "is not UTF-8");
        check(
            b"{\n  \"a\": 1,\n}",
            "a comma before the bracket that closes; remove it at line 3 column 1",
        );
        check(b"{\"a\": [1,]}", "a comma before the bracket");
        check(
            b"{\n \"a\": 1, // one\n \"b\": 2}",
            "a comment, which JSON has not; remove it at line 2 column 10",
        );
        check(b"{\"a\": 1 /* one */}", "a comment");
        check(b"{\n# one\n}", "a comment");
        check(b"{'a': 1}", "single quotes");
        check(b"{\"a\": None}", "a word of Python's");
        check(b"{\"a\": 1, \"a\": 2}", "`a` appears twice at line 1");
        check(b"{\"a\": 1,\n \"o\": {\"b\": 1,\n  \"b\": 2}}", "`b` appears twice at line 3");
        check(b"{\"l\": [1, {\"b\": 1,\n \"b\": 2}]}", "`b` appears twice at line 2");
        check(b"[1]", "is not a JSON object");
        check(b"{} {}", "is not a JSON object");
        let deep = |levels: usize| format!("{}1{}", "{\"a\":[".repeat(levels), "]}".repeat(levels));
        assert!(JsonText::of_text(deep(64)).is_ok());
        check(deep(65).as_bytes(), "in more than 128 others");
        check("[".repeat(1 << 20).as_bytes(), "in more than 128 others");
        let brackets_in_text = format!("{{\"a\": \"{}\"}}", "[\\\"{".repeat(1000));
        assert!(JsonText::of_text(brackets_in_text).is_ok());
    }

    #[test]
    fn values_with_infinite_numbers() {
        let text = as_json(r#"{"a": [1, -Infinity, {"b": Infinity, "c": "x"}]}"#);
        let expected = serde_json::json!({"a": [1, null, {"b": null, "c": "x"}]});
        assert_eq!(value(&text.expect("has infinities")).expect("is JSON"), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = JsonText::of_bytes(bytes);
        }

        #[test]
        fn nearly_json_is_as_long(text in r#"[{}"':,/#aN0-9 \n\\]{0,20}(NaN|Infinity|null)?[]}"\n ä]{0,8}"#) {
            prop_assert!(as_json(&text).is_none_or(|json| json.len() == text.len()));
            let _ = JsonText::of_text(text);
        }
    }
}
