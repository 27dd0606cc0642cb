//! What becomes of a text before and after the model.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::{
    model::{Algorithm, Kind, SPACE, SentencePiece},
    vocabulary::{STAND_INS, Vocabulary},
};
use crate::Error;

/// Where a space is put before a text that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Never,
    /// Before the text and after each added token, as SentencePiece is called for the parts between.
    EachPart,
    /// Before the text.
    First,
}

fn part<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|e| {
        Error::file(
            "tokenizer.model",
            format!("has settings that the tokenizers crate does not take: {e}"),
        )
    })
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
}

fn exchange(text: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": text}, "content": content})
}

pub(crate) fn normalizer(
    model: &SentencePiece,
    vocabulary: &Vocabulary,
    prefix: Prefix,
) -> Result<NormalizerWrapper, Error> {
    let said = &model.normalizer;
    let space = if said.escape_whitespaces { SPACE } else { ' ' };
    let mut steps = Vec::new();
    if let Some(map) = &said.charsmap {
        let kept = vocabulary.kept_from_rules.iter().map(|&id| vocabulary.names[id].clone());
        let stand_ins = STAND_INS.filter_map(char::from_u32).map(String::from);
        let kept: Vec<(String, String)> = kept.zip(stand_ins).collect();
        steps.extend(kept.iter().map(|(name, stand_in)| exchange(name, stand_in)));
        let map = BASE64_STANDARD.encode(map);
        steps.push(json!({"type": "Precompiled", "precompiled_charsmap": map}));
        steps.extend(kept.iter().map(|(name, stand_in)| exchange(stand_in, name)));
    }
    if said.remove_extra_whitespaces {
        steps.push(replace(" {2,}", " "));
        // Alone, a space stands for the prefix.
        steps.push(replace(if prefix == Prefix::First { r"\A \z" } else { r"\A " }, ""));
    }
    if prefix == Prefix::EachPart {
        steps.push(json!({"type": "Prepend", "prepend": space}));
    }
    if said.escape_whitespaces {
        steps.push(exchange(" ", &String::from(SPACE)));
    }
    if said.remove_extra_whitespaces {
        steps.push(replace(&format!(r"{space}+\z"), ""));
    }
    part(json!({"type": "Sequence", "normalizers": steps}))
}

pub(crate) fn pre_tokenizer(
    model: &SentencePiece,
    vocabulary: &Vocabulary,
    prefix: Prefix,
) -> Result<Option<PreTokenizerWrapper>, Error> {
    let mut steps = Vec::new();
    if prefix == Prefix::First {
        steps.push(json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false}));
    }
    let alone = stand_alone(model, vocabulary);
    if !alone.is_empty() {
        steps.push(split(&alone.join("|"), "Isolated"));
    }
    if model.algorithm == Algorithm::Unigram && words_are_apart(model) {
        steps.push(split(&format!("{SPACE}+"), "MergedWithNext"));
    }
    if steps.is_empty() {
        return Ok(None);
    }
    part(json!({"type": "Sequence", "pretokenizers": steps})).map(Some)
}

fn split(pattern: &str, behavior: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false})
}

/// Patterns of what no piece goes across: user-defined pieces, and in unigram models the first character of each text that looks
/// like a piece which stands for no text.
fn stand_alone(model: &SentencePiece, vocabulary: &Vocabulary) -> Vec<String> {
    let names = vocabulary.user_defined.iter().map(|&id| &vocabulary.names[id]);
    let mut patterns: Vec<String> =
        names.map(|name| fancy_regex::escape(name).into_owned()).collect();
    if model.algorithm == Algorithm::Bpe {
        return patterns;
    }
    if model.byte_fallback {
        patterns.push("<(?=0x[0-9A-F]{2}>)".to_owned());
    }
    // Of a text as it was given, these are cut out before.
    let made_by_rules = model.normalizer.charsmap.is_some();
    for (id, piece) in model.pieces.iter().enumerate() {
        if made_by_rules && matches!(piece.kind, Kind::Control | Kind::Unknown) {
            let mut rest = vocabulary.names[id].chars();
            let first = rest.next().map(String::from).unwrap_or_default();
            let (first, rest) = (fancy_regex::escape(&first), fancy_regex::escape(rest.as_str()));
            patterns.push(format!("{first}(?={rest})"));
        }
    }
    patterns
}

/// Whether pieces have the mark of a space at their beginning alone, so that words may be looked at one by one.
fn words_are_apart(model: &SentencePiece) -> bool {
    let mut space_is_known = false;
    for piece in &model.pieces {
        let word = piece.text.trim_start_matches(SPACE);
        match piece.kind {
            Kind::Normal if word.contains(SPACE) => return false,
            Kind::UserDefined if piece.text.contains(SPACE) => return false,
            Kind::Normal => space_is_known |= piece.text.chars().eq([SPACE]),
            _ => {}
        }
    }
    space_is_known && model.normalizer.escape_whitespaces
}

pub(crate) fn decoder(model: &SentencePiece, prefix: Prefix) -> Result<DecoderWrapper, Error> {
    let mut steps = vec![json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "})];
    if model.byte_fallback {
        steps.push(json!({"type": "ByteFallback"}));
    }
    steps.push(json!({"type": "Fuse"}));
    if prefix != Prefix::Never {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    part(json!({"type": "Sequence", "decoders": steps}))
}
