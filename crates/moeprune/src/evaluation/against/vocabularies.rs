//! Whether two models number the same tokens the same way: predictions compare only then.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::Checkpoint;
use moeprune_engine::{Model, ModelText, TextFiles, load_tokenizer, printable};
use moeprune_tokenizer::TokenizerFiles;

use crate::Error;

/// The most bytes of a tokenizer's file.
const MAX_BYTES: u64 = 1 << 30;

/// Refuses models of different vocabularies. Returns the one whose tokenizer reads the text: `model`, unless it has none.
///
/// # Errors
/// If the two predict different numbers of tokens, give one token different ids, or a tokenizer cannot be read.
pub(super) fn reader<'a>(
    model: &'a Checkpoint,
    reference: &'a Checkpoint,
) -> Result<&'a Checkpoint, Error> {
    let (a, b) = (model.spec().vocab, reference.spec().vocab);
    let names = || (model.dir().display(), reference.dir().display());
    if a != b {
        let (model, reference) = names();
        return Err(Error::Request(format!(
            "{model} has a vocabulary of {a} tokens, and {reference} one of {b}: their predictions do not compare; give \
             the model that {model} was made of"
        )));
    }
    let files = (files(model)?, files(reference)?);
    match (has_tokenizer(&files.0), has_tokenizer(&files.1)) {
        (_, false) => return Ok(model),
        (false, true) => return Ok(reference),
        (true, true) if files.0 == files.1 => return Ok(model),
        (true, true) => {}
    }
    let numbered = |checkpoint: &Checkpoint| {
        load_tokenizer(checkpoint).map(|tokenizer| tokenizer.get_vocab(true))
    };
    if let Some(conflict) = conflict(&numbered(model)?, &numbered(reference)?) {
        let (model, reference) = names();
        return Err(Error::Request(format!(
            "the tokenizers of {model} and {reference} differ: {}; their predictions do not compare",
            conflict.in_words()
        )));
    }
    Ok(model)
}

/// Refuses models whose tokenizers make different tokens of a text; `blocks` is what one of them makes of it.
///
/// # Errors
/// Where the first difference is; if the text cannot be read.
pub(super) fn check_blocks(
    data: &Path,
    (model, reference): (&Checkpoint, &Checkpoint),
    blocks: &TokenBlocks,
) -> Result<(), Error> {
    let files = (files(model)?, files(reference)?);
    if !(has_tokenizer(&files.0) && has_tokenizer(&files.1)) || files.0 == files.1 {
        return Ok(());
    }
    let text = ModelText::open(TextFiles::from(data), reference)?;
    let others = text.blocks_in_order(blocks.sequence_len())?;
    let pairs = blocks.blocks().iter().flatten().zip(others.blocks().iter().flatten());
    let token = match pairs.enumerate().find(|(_, (a, b))| a != b) {
        Some((token, _)) => token,
        None if blocks.tokens() == others.tokens() => return Ok(()),
        None => blocks.tokens().min(others.tokens()) as usize,
    };
    Err(Error::Request(format!(
        "the tokenizers of {} and {} make different tokens of {}, from token {} on: the models would not read the same \
         text",
        model.dir().display(),
        reference.dir().display(),
        data.display(),
        token + 1
    )))
}

fn files(model: &Checkpoint) -> Result<TokenizerFiles, Error> {
    Ok(TokenizerFiles::read(|name| Model::read_file(model, Path::new(name), MAX_BYTES))?)
}

fn has_tokenizer(files: &TokenizerFiles) -> bool {
    let TokenizerFiles { tokenizer_json, tokenizer_model, vocab_json, tiktoken, tekken, .. } =
        files;
    [tokenizer_json, tokenizer_model, vocab_json, tiktoken, tekken]
        .iter()
        .any(|file| file.is_some())
}

/// Tokens and their ids.
type Vocabulary = HashMap<String, u32>;

/// What two vocabularies contradict each other in.
#[derive(Debug, PartialEq, Eq)]
enum Conflict {
    /// One id, two tokens.
    Id(u32, [String; 2]),
    /// One token, two ids.
    Token(String, [u32; 2]),
}

impl Conflict {
    fn in_words(&self) -> String {
        match self {
            Self::Id(id, [a, b]) => {
                format!(
                    "token {id} is `{}` in one and `{}` in the other",
                    printable(a),
                    printable(b)
                )
            }
            Self::Token(token, [a, b]) => {
                format!("`{}` is token {a} in one and {b} in the other", printable(token))
            }
        }
    }
}

/// The contradiction of the lowest id. A token that one of them lacks is none.
fn conflict(a: &Vocabulary, b: &Vocabulary) -> Option<Conflict> {
    let by_id = |vocabulary: &'_ Vocabulary| -> BTreeMap<u32, String> {
        vocabulary.iter().map(|(token, id)| (*id, token.clone())).collect()
    };
    let others = by_id(b);
    by_id(a).into_iter().find_map(|(id, token)| match (b.get(&token), others.get(&id)) {
        (Some(&other), _) if other == id => None,
        (Some(&other), _) => Some(Conflict::Token(token, [id, other])),
        (None, Some(other)) => Some(Conflict::Id(id, [token, other.clone()])),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_that_contradict_each_other() {
        let check = |a: &[(&str, u32)], b: &[(&str, u32)], expected: Option<Conflict>| {
            let of = |tokens: &[(&str, u32)]| {
                tokens.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect::<Vocabulary>()
            };
            assert_eq!(conflict(&of(a), &of(b)), expected, "{a:?} {b:?}");
        };
        check(&[], &[], None);
        check(&[("a", 0), ("b", 1)], &[("b", 1), ("a", 0)], None);
        check(&[("a", 0), ("b", 1)], &[("a", 0)], None);
        check(&[("a", 0)], &[("a", 0), ("b", 1)], None);
        check(&[("a", 0)], &[("b", 0)], Some(Conflict::Id(0, ["a".into(), "b".into()])));
        check(&[("a", 0)], &[("a", 1)], Some(Conflict::Token("a".into(), [0, 1])));
        check(
            &[("a", 0), ("b", 1), ("c", 2)],
            &[("a", 0), ("c", 1), ("b", 2)],
            Some(Conflict::Token("b".into(), [1, 2])),
        );
    }
}
