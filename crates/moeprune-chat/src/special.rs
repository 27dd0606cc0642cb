//! Special tokens, as templates see them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Error;

/// The special tokens of a tokenizer by their keys (`bos_token`, `eos_token`, …): variables of every
/// template.
///
/// ```
/// use moeprune_chat::SpecialTokens;
///
/// let config = br#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null}"#;
/// let tokens = SpecialTokens::of_config(config)?;
/// assert_eq!(tokens.get("bos_token"), Some("<s>"));
/// assert_eq!(tokens.get("pad_token"), None);
/// # Ok::<(), moeprune_chat::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens(BTreeMap<String, String>);

pub(crate) const CONFIG: &str = "tokenizer_config.json";

impl SpecialTokens {
    /// The tokens that `tokenizer_config.json` names: each key that ends in `_token`, a string or an
    /// object with `content`. A key whose value is `null` or a flag (`add_bos_token`) names none.
    ///
    /// # Errors
    /// Bytes that are no JSON object, and a token of another type.
    pub fn of_config(tokenizer_config: &[u8]) -> Result<Self, Error> {
        Self::of_object(&object(CONFIG, tokenizer_config)?)
    }

    pub(crate) fn of_object(config: &Map<String, Value>) -> Result<Self, Error> {
        let mut tokens = Self::default();
        for (key, value) in config.iter().filter(|(key, _)| key.ends_with("_token")) {
            match value {
                Value::String(token) => tokens.insert(key, token),
                Value::Object(token) => match token.get("content") {
                    Some(Value::String(content)) => tokens.insert(key, content),
                    _ => return Err(wrong(key, value)),
                },
                Value::Null | Value::Bool(_) => {}
                _ => return Err(wrong(key, value)),
            }
        }
        Ok(tokens)
    }

    /// Names a token. One that has the name already is replaced.
    pub fn insert(&mut self, key: &str, token: &str) {
        self.0.insert(key.to_owned(), token.to_owned());
    }

    /// The token that a key names.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All of them, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, token)| (key.as_str(), token.as_str()))
    }
}

fn wrong(key: &str, value: &Value) -> Error {
    Error::Key {
        file: CONFIG.to_owned(),
        key: key.to_owned(),
        expected: "a string or an object with a string under `content`",
        got: kind(value).to_owned(),
    }
}

/// A file that is a JSON object. A byte order mark is passed over; NaN and infinities, which Python writes, are null.
pub(crate) fn object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let read = serde_json::from_slice(bytes);
    let read = read.or_else(|error| {
        serde_json::from_slice(&moeprune_json::replaced(bytes, |_| "null")).map_err(|_| error)
    });
    read.map_err(|error: serde_json::Error| Error::Json {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
