//! One tokenizer of the files that are there.

use tokenizers::{ModelWrapper, Tokenizer};

use crate::{
    Error, TokenizerFiles, byte_level, error::WITH_TRANSFORMERS, json, python_json, sentencepiece,
};

/// Makes a tokenizer of its files: of `tokenizer.json`, or of others where there is none. It neither pads nor cuts, and merges
/// are not dropped at random.
///
/// The ids may go beyond a model's embedding ([`id_beyond`](crate::id_beyond)).
///
/// # Errors
/// If there are no files, they cannot be read, contradict each other, or are of a form that is not read.
pub fn load(files: &TokenizerFiles) -> Result<Tokenizer, Error> {
    let mut tokenizer = whole(files)?;
    // Released files often carry settings of their last training run; all three would change texts.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| Error::file("tokenizer.json", format!("has truncation that stays on: {e}")))?;
    without_dropout(&mut tokenizer);
    Ok(tokenizer)
}

fn whole(files: &TokenizerFiles) -> Result<Tokenizer, Error> {
    if let Some(bytes) = &files.tokenizer_json {
        return json::tokenizer(bytes);
    }
    let unsupported = |file, what: &str| {
        let (what, remedy) = (what.to_owned(), WITH_TRANSFORMERS);
        Err(Error::Unsupported { file, what, remedy })
    };
    const TIKTOKEN: &str = "a tiktoken vocabulary";
    if let Some(bytes) = &files.tokenizer_model {
        if is_tiktoken(python_json::content("tokenizer.model", bytes)?) {
            return unsupported("tokenizer.model", TIKTOKEN);
        }
        return sentencepiece::tokenizer(bytes, files);
    }
    if let (Some(vocab), Some(merges)) = (&files.vocab_json, &files.merges_txt) {
        return byte_level::tokenizer(vocab, merges, files);
    }
    if files.tiktoken.is_some() {
        return unsupported("tiktoken.model", TIKTOKEN);
    }
    if files.tekken.is_some() {
        return unsupported("tekken.json", "a tekken vocabulary");
    }
    if files.vocab_json.is_some() {
        return unsupported("vocab.json", "a vocabulary without merges.txt");
    }
    Err(Error::Missing {
        expected: "tokenizer.json (nor tokenizer.model, nor vocab.json with merges.txt)",
    })
}

/// Lines of base64 and a number.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Some(at) = line.iter().position(|&byte| byte == b' ') else { return false };
    let (token, rank) = line.split_at(at);
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let digits = rank[1..].trim_ascii_end();
    !token.is_empty()
        && token.len() % 4 == 0
        && token.iter().all(base64)
        && !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
}

fn without_dropout(tokenizer: &mut Tokenizer) {
    match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some() => {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            tokenizer.with_model(bpe);
        }
        _ => {}
    }
}
