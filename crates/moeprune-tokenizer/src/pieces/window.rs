//! A part of a text, tokenised.

use tokenizers::{
    Encoding, Model, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer, normalizers::Precompiled,
};

use crate::Error;

/// Bytes of the whole text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A token, with its bytes in the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) id: u32,
    /// Whether it is the first of a word, as far as the tokenizer knows words.
    pub(super) begins_word: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    pub(super) span: Span,
    pub(super) tokens: Vec<Token>,
    /// Tokens before belong to the window before.
    pub(super) joint: usize,
    /// Whether the bytes of the tokens are right.
    pub(super) is_placed: bool,
}

impl Window {
    /// Tokenises a part of `text`, which begins at `base` of the whole.
    pub(super) fn encode(
        tokenizer: &Tokenizer,
        text: &str,
        base: u64,
        span: Span,
    ) -> Result<Self, Error> {
        let part = &text[(span.start - base) as usize..(span.end - base) as usize];
        let (encoding, is_placed) = encode(tokenizer, part)
            .map_err(|e| Error::Encode { at: span.start, problem: e.to_string() })?;
        let mut word = None;
        let tokens =
            encoding.get_ids().iter().zip(encoding.get_offsets()).zip(encoding.get_word_ids());
        let tokens = tokens.map(|((&id, &(start, end)), &of_word)| {
            let begins_word = word != Some(of_word);
            word = Some(of_word);
            Token {
                start: span.start + start as u64,
                end: span.start + end as u64,
                id,
                begins_word,
            }
        });
        Ok(Self { span, tokens: tokens.collect(), joint: 0, is_placed })
    }
}

/// As `encode(text, false)`, but that no post-processor trims what bytes a token has; and whether these bytes are right.
fn encode(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<(Encoding, bool)> {
    let normalizer = tokenizer.get_normalizer();
    let mut parts = tokenizer.get_added_vocabulary().extract_and_normalize(normalizer, text);
    let is_placed = rules(normalizer).is_none_or(|rules| are_placed(&parts, text, rules));
    if let Some(words) = tokenizer.get_pre_tokenizer() {
        words.pre_tokenize(&mut parts)?;
    }
    tokenizer.get_model().tokenize_in_pretokenized(&mut parts, None)?;
    Ok((parts.into_encoding(None, 0, OffsetType::Byte)?, is_placed))
}

fn rules(normalizer: Option<&NormalizerWrapper>) -> Option<&Precompiled> {
    match normalizer? {
        NormalizerWrapper::Precompiled(rules) => Some(rules),
        NormalizerWrapper::Sequence(steps) => {
            steps.as_ref().iter().find_map(|step| rules(Some(step)))
        }
        _ => None,
    }
}

/// Where SentencePiece's rules for characters remove the first character of a part, the tokenizers crate gives all that follows the bytes of
/// what is before it.
fn are_placed(parts: &PreTokenizedString, text: &str, rules: &Precompiled) -> bool {
    let is_kept = |first: char| rules.transform(first.encode_utf8(&mut [0; 4])) != Some("");
    let parts = parts.get_splits(OffsetReferential::Original, OffsetType::Byte);
    parts.iter().all(|(_, (start, end), tokens)| {
        let first = text.get(*start..*end).and_then(|part| part.chars().next());
        tokens.is_some() || first.is_none_or(is_kept)
    })
}
