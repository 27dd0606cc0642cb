//! `tokenizer.json`, and what in it would make the tokenizers crate panic.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use fancy_regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use tokenizers::Tokenizer;

use crate::{Error, charsmap, python_json};

const FILE: &str = "tokenizer.json";
/// A unigram model holds a piece as a chain of its bytes, which must not be too deep for the stack.
const LONGEST_PIECE: usize = 4096;

fn error(problem: impl fmt::Display) -> Error {
    Error::file(FILE, format!("{problem}; download it again"))
}

pub(crate) fn tokenizer(bytes: &[u8]) -> Result<Tokenizer, Error> {
    let bytes = python_json::content(FILE, bytes)?;
    check(bytes).map_err(error)?;
    Tokenizer::from_bytes(bytes).map_err(|e| error(format!("cannot be parsed: {e}")))
}

/// The parts that are looked at before the tokenizers crate is.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(default)]
    added_tokens: Option<Vec<Added>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
}

fn check(bytes: &[u8]) -> Result<(), String> {
    let parse = |e: serde_json::Error| format!("cannot be parsed: {e}");
    let parts: Parts<'_> = serde_json::from_slice(bytes).map_err(parse)?;
    for Added { id } in parts.added_tokens.unwrap_or_default() {
        check_id(id)?;
    }
    for part in [&parts.normalizer, &parts.pre_tokenizer, &parts.post_processor, &parts.decoder] {
        walk(part)?;
    }
    let model = parts.model.ok_or("has no model")?;
    let model: ModelParts = serde_json::from_str(model.get()).map_err(parse)?;
    let prefix = model.continuing_subword_prefix.unwrap_or_default();
    let vocab = model.vocab.unwrap_or_default();
    check_id(vocab.highest)?;
    if vocab.deepest > LONGEST_PIECE {
        let got = vocab.deepest;
        return Err(format!("has a piece of {got} bytes; expected at most {LONGEST_PIECE}"));
    }
    for (number, Merge(left, right)) in (1..).zip(model.merges.unwrap_or_default()) {
        let right = right.strip_prefix(prefix.as_str());
        if right.is_none_or(|right| left.len() + right.len() > vocab.longest) {
            return Err(format!("has the merge {number}, whose result is not in the vocabulary"));
        }
    }
    Ok(())
}

/// Ids are those of rows of a matrix, and other programs hold them in 31 bits.
fn check_id(id: u32) -> Result<(), String> {
    if i32::try_from(id).is_err() {
        return Err(format!("has the token id {id}; expected at most {}", i32::MAX));
    }
    Ok(())
}

#[derive(Deserialize)]
struct ModelParts {
    #[serde(default)]
    vocab: Option<VocabFacts>,
    #[serde(default)]
    merges: Option<Vec<Merge>>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
}

/// What is to be known of a vocabulary: texts with ids, or pairs of texts and scores.
#[derive(Default)]
struct VocabFacts {
    highest: u32,
    /// Bytes of the longest text with an id.
    longest: usize,
    /// Bytes of the longest text with a score.
    deepest: usize,
}

impl<'de> Deserialize<'de> for VocabFacts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Facts;
        impl<'de> Visitor<'de> for Facts {
            type Value = VocabFacts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ids or a list of pieces with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabFacts, A::Error> {
                let mut facts = VocabFacts::default();
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    facts.highest = facts.highest.max(id);
                    facts.longest = facts.longest.max(text.len());
                }
                Ok(facts)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<VocabFacts, A::Error> {
                let mut facts = VocabFacts::default();
                while let Some((text, _)) = list.next_element::<(String, f64)>()? {
                    facts.deepest = facts.deepest.max(text.len());
                }
                Ok(facts)
            }
        }
        from.deserialize_any(Facts)
    }
}

/// Two texts, in a list or with a space between.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                let (left, right) = text.split_once(' ').unwrap_or_default();
                Ok(Merge(left.to_owned(), right.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let mut next = || list.next_element::<String>();
                let (Some(left), Some(right)) = (next()?, next()?) else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                Ok(Merge(left, right))
            }
        }
        from.deserialize_any(Two)
    }
}

/// Looks into settings, however they are nested.
fn walk(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(walk),
        Value::Object(fields) => {
            check_step(fields)?;
            fields.values().try_for_each(walk)
        }
        _ => Ok(()),
    }
}

fn check_step(fields: &Map<String, Value>) -> Result<(), String> {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind == "Precompiled" && !fields.get("precompiled_charsmap").is_some_and(Value::is_string) {
        return Err("has a Precompiled without a text as its precompiled_charsmap".to_owned());
    }
    if let Some(map) = fields.get("precompiled_charsmap").and_then(Value::as_str) {
        let map = BASE64_STANDARD
            .decode(map)
            .map_err(|e| format!("has a precompiled_charsmap that is no base64: {e}"))?;
        charsmap::check(&map).map_err(|e| format!("has a precompiled_charsmap that {e}"))?;
    }
    if kind == "FixedLength" && fields.get("length").and_then(Value::as_u64) == Some(0) {
        return Err("has a FixedLength of 0; expected at least 1".to_owned());
    }
    if let Some(pattern) = fields.get("pattern").filter(|_| kind == "Replace") {
        check_replaced(pattern)?;
    }
    if fields.contains_key("single") || fields.contains_key("pair") {
        check_template(fields)?;
    }
    Ok(())
}

/// What is put where nothing was has no place in the original text, and the places of what follows are wrong.
fn check_replaced(pattern: &Value) -> Result<(), String> {
    const PROBES: [&str; 4] = ["", "a", "ab  ba\r\n\t12.", "é 🙂日\u{301}"];
    let finds_nothing = match (pattern.get("String"), pattern.get("Regex").and_then(Value::as_str))
    {
        (Some(text), _) => text == "",
        // What is no pattern, the tokenizers crate says.
        (_, Some(pattern)) => Regex::new(pattern).is_ok_and(|pattern| {
            let mut matches = PROBES.iter().flat_map(|text| pattern.find_iter(text));
            matches.any(|found| found.is_ok_and(|found| found.range().is_empty()))
        }),
        _ => false,
    };
    if finds_nothing {
        return Err(format!("has a Replace of a pattern that matches an empty text: {pattern}"));
    }
    Ok(())
}

/// A template puts no token in that it does not list, and no second text where there is one.
fn check_template(fields: &Map<String, Value>) -> Result<(), String> {
    let known = fields.get("special_tokens").and_then(Value::as_object);
    let of_text = |piece: &Value| piece.get("Sequence")?.get("id")?.as_str().map(str::to_owned);
    let single = fields.get("single").and_then(Value::as_array);
    if single.into_iter().flatten().filter_map(of_text).any(|text| text != "A") {
        return Err("has a second text in its TemplateProcessing for one".to_owned());
    }
    let pieces = ["single", "pair"].into_iter().filter_map(|key| fields.get(key)?.as_array());
    for piece in pieces.flatten() {
        let Some(token) = piece.get("SpecialToken").and_then(|token| token.get("id")?.as_str())
        else {
            continue;
        };
        if !known.is_some_and(|known| known.contains_key(token)) {
            return Err(format!(
                "has {token:?} in its TemplateProcessing and not in special_tokens"
            ));
        }
    }
    Ok(())
}
