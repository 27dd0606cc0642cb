//! `tokenizer_config.json`, and in older releases `special_tokens_map.json` and `added_tokens.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::{Error, TokenizerFiles, python_json};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
/// Keys of special tokens, in the order in which transformers adds those that are not there yet.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further special tokens.
const FURTHER: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// What a tokenizer's config says, of what matters here. Without the files it is empty.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    config: Map<String, Value>,
    /// Added tokens with an id.
    pub(crate) added: BTreeMap<u32, AddedToken>,
    /// Special tokens without an id, each once, in the order in which they get one. Those with an id may be among them.
    pub(crate) special: Vec<AddedToken>,
    roles: BTreeMap<&'static str, Option<String>>,
}

impl TokenizerConfig {
    pub(crate) fn parse(files: &TokenizerFiles) -> Result<Self, Error> {
        let map = |file, bytes: &Option<Vec<u8>>| -> Result<Map<String, Value>, Error> {
            bytes.as_ref().map_or_else(|| Ok(Map::new()), |bytes| python_json::parse(file, bytes))
        };
        let mut parsed = Self { config: map(CONFIG, &files.tokenizer_config)?, ..Self::default() };
        let mut tokens = parsed.config.clone();
        match parsed.config.get("added_tokens_decoder") {
            Some(Value::Object(decoder)) => parsed.added = by_id(decoder)?,
            None | Some(Value::Null) => tokens.extend(
                map(MAP, &files.special_tokens_map)?
                    .into_iter()
                    .filter(|(_, value)| !value.is_null()),
            ),
            Some(_) => {
                return Err(Error::file(
                    CONFIG,
                    "has added_tokens_decoder that is no object of ids",
                ));
            }
        }
        parsed.take_special(&tokens)?;
        if !parsed.config.contains_key("added_tokens_decoder") {
            parsed.take_added(map(ADDED, &files.added_tokens)?)?;
        }
        Ok(parsed)
    }

    /// The class by which transformers knows the tokenizer, without the suffix of its fast form.
    pub(crate) fn class(&self) -> Option<&str> {
        let class = self.config.get("tokenizer_class")?.as_str()?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key)?.as_bool()
    }

    /// The text of a special token: `None` where the files do not say, `Some(None)` where they say that there is none.
    pub(crate) fn role(&self, key: &str) -> Option<Option<&str>> {
        self.roles.get(key).map(Option::as_deref)
    }

    fn take_special(&mut self, tokens: &Map<String, Value>) -> Result<(), Error> {
        let mut found = Vec::new();
        for key in ROLES {
            match tokens.get(key) {
                None => {}
                Some(Value::Null) => drop(self.roles.insert(key, None)),
                Some(value) => {
                    let token = special_token(key, value)?;
                    self.roles.insert(key, Some(token.content.clone()));
                    found.push(token);
                }
            }
        }
        for key in FURTHER {
            let further: Vec<&Value> = match tokens.get(key) {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(named)) => named.values().collect(),
                _ => Vec::new(),
            };
            for value in further {
                found.push(special_token(key, value)?);
            }
        }
        let mut seen = BTreeSet::new();
        found.retain(|token| !token.content.is_empty() && seen.insert(token.content.clone()));
        self.special = found;
        Ok(())
    }

    fn take_added(&mut self, tokens: Map<String, Value>) -> Result<(), Error> {
        for (content, id) in tokens {
            let id = id.as_u64().and_then(id_of).ok_or_else(|| {
                Error::file(
                    ADDED,
                    format!("has the id {id} for {content:?}; expected 0 to {}", i32::MAX),
                )
            })?;
            let special = self.special.iter().find(|token| token.content == content).cloned();
            let token =
                special.unwrap_or_else(|| AddedToken::from(content, false).normalized(false));
            if let Some(other) = self.added.insert(id, token) {
                return Err(Error::file(
                    ADDED,
                    format!("has the id {id} twice, for {:?} too", other.content),
                ));
            }
        }
        Ok(())
    }
}

/// Ids are those of rows of a matrix, and other programs hold them in 31 bits.
fn id_of(id: u64) -> Option<u32> {
    i32::try_from(id).ok().map(i32::cast_unsigned)
}

fn by_id(decoder: &Map<String, Value>) -> Result<BTreeMap<u32, AddedToken>, Error> {
    let mut added = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (key, value) in decoder {
        let id = key.parse().ok().and_then(id_of).ok_or_else(|| {
            Error::file(
                CONFIG,
                format!("has the id {key:?} in added_tokens_decoder; expected 0 to {}", i32::MAX),
            )
        })?;
        let special = value.get("special").and_then(Value::as_bool).unwrap_or(false);
        let token = token("added_tokens_decoder", value)?.special(special);
        if let Some(first) = seen.insert(token.content.clone(), id) {
            let content = token.content;
            return Err(Error::file(
                CONFIG,
                format!("has the added token {content:?} twice, as {first} and {id}"),
            ));
        }
        added.insert(id, token);
    }
    Ok(added)
}

fn special_token(key: &str, value: &Value) -> Result<AddedToken, Error> {
    Ok(token(key, value)?.special(true))
}

/// A token that is a text, or an object with one. It is found in the text before the text is normalised in any way.
fn token(key: &str, value: &Value) -> Result<AddedToken, Error> {
    let content = value.as_str().or_else(|| value.get("content")?.as_str());
    let content = content.ok_or_else(|| {
        Error::file(CONFIG, format!("has a token under {key} that is no text: {value}"))
    })?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(AddedToken::from(content, false)
        .normalized(false)
        .lstrip(flag("lstrip"))
        .rstrip(flag("rstrip"))
        .single_word(flag("single_word")))
}
