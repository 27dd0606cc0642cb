//! `vocab.json` with `merges.txt`: byte-level BPE of classes whose rules for words are known.

use std::collections::BTreeMap;

use serde_json::json;
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
};

use crate::{
    Error, TokenizerFiles, config::TokenizerConfig, error::WITH_TRANSFORMERS, python_json,
};

const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CONFIG: &str = "tokenizer_config.json";

/// Words of Qwen2 and its successors: contractions, letters with what is before them, single digits, signs, line breaks, spaces.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(crate) fn tokenizer(
    vocab: &[u8],
    merges: &[u8],
    files: &TokenizerFiles,
) -> Result<Tokenizer, Error> {
    let config = TokenizerConfig::parse(files)?;
    let class = config.class().unwrap_or("a class that tokenizer_config.json does not name");
    let space_first = config.flag("add_prefix_space").unwrap_or(false);
    let (normalizer, words) = match class {
        "GPT2Tokenizer" => (None, ByteLevel::new(space_first, true, true).into()),
        "Qwen2Tokenizer" => (Some(json!({"type": "NFC"})), qwen_words(space_first)?),
        _ => {
            return Err(Error::Unsupported {
                file: VOCAB,
                what: format!("the vocabulary of {class}"),
                remedy: WITH_TRANSFORMERS,
            });
        }
    };
    let mut ids = ids(vocab)?;
    let added = added(&mut ids, &config)?;
    let merges = read_merges(merges, &ids)?;
    let broken =
        |e: tokenizers::Error| Error::file(MERGES, format!("does not fit vocab.json: {e}"));
    let ids: Vocab = ids.into_iter().collect();
    let bpe = BPE::builder().vocab_and_merges(ids, merges).build().map_err(broken)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let normalizer: Option<NormalizerWrapper> =
        normalizer.map(serde_json::from_value).transpose().map_err(|e| broken(e.into()))?;
    tokenizer.with_normalizer(normalizer).map_err(broken)?;
    tokenizer.with_pre_tokenizer(Some(words));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    tokenizer.add_tokens(added).map_err(broken)?;
    let bos = bos(&tokenizer, &config)?;
    tokenizer.with_post_processor(bos);
    Ok(tokenizer)
}

fn qwen_words(space_first: bool) -> Result<PreTokenizerWrapper, Error> {
    serde_json::from_value(json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": space_first, "trim_offsets": false, "use_regex": false},
    ]}))
    .map_err(|e| Error::file(VOCAB, e.to_string()))
}

fn ids(vocab: &[u8]) -> Result<BTreeMap<String, u32>, Error> {
    let ids: BTreeMap<String, u32> = python_json::parse(VOCAB, vocab)?;
    match ids.iter().find(|&(_, &id)| i32::try_from(id).is_err()) {
        Some((text, id)) => Err(Error::file(
            VOCAB,
            format!("has the id {id} for {text:?}; expected at most {}", i32::MAX),
        )),
        None => Ok(ids),
    }
}

/// Added tokens, which get ids in `ids` where they have none.
fn added(
    ids: &mut BTreeMap<String, u32>,
    config: &TokenizerConfig,
) -> Result<Vec<AddedToken>, Error> {
    let mut added = config.added.clone();
    for (&id, token) in &config.added {
        if let Some(other) = ids.insert(token.content.clone(), id).filter(|&other| other != id) {
            return Err(Error::file(
                CONFIG,
                format!(
                    "gives {:?} the id {id}, which is {other} in vocab.json; take the config that belongs to the model",
                    token.content
                ),
            ));
        }
    }
    let mut next = ids.values().max().map_or(0, |&id| id + 1);
    for token in &config.special {
        let id = *ids.entry(token.content.clone()).or_insert_with(|| {
            next += 1;
            next - 1
        });
        added.entry(id).or_insert_with(|| token.clone()).special = true;
    }
    Ok(added.into_values().collect())
}

fn read_merges(merges: &[u8], ids: &BTreeMap<String, u32>) -> Result<Vec<(String, String)>, Error> {
    let text = str::from_utf8(python_json::content(MERGES, merges)?)
        .map_err(|e| Error::file(MERGES, format!("is no UTF-8: {e}; download it again")))?;
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        if number == 1 && line.starts_with("#version") {
            continue;
        }
        let two = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let (left, right) = two.ok_or_else(|| {
            Error::file(MERGES, format!("line {number} is no two texts with a space between"))
        })?;
        if [left, right, &format!("{left}{right}")].iter().any(|text| !ids.contains_key(*text)) {
            return Err(Error::file(
                MERGES,
                format!(
                    "line {number} puts {left:?} and {right:?} together, which vocab.json does not have; take both files of one model"
                ),
            ));
        }
        read.push((left.to_owned(), right.to_owned()));
    }
    Ok(read)
}

fn bos(
    tokenizer: &Tokenizer,
    config: &TokenizerConfig,
) -> Result<Option<PostProcessorWrapper>, Error> {
    if !config.flag("add_bos_token").unwrap_or(false) {
        return Ok(None);
    }
    let bos = config.role("bos_token").flatten();
    let bos = bos.and_then(|text| Some((text, tokenizer.token_to_id(text)?))).ok_or_else(|| {
        Error::file(CONFIG, "has add_bos_token on and no bos_token; name one, or set it to false")
    })?;
    crate::template::around(Some((bos.1, bos.0.to_owned())), None)
}
