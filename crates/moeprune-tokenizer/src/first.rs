//! The token that stands before a text where nothing else does.

use tokenizers::Tokenizer;

use crate::{Error, TokenizerFiles, config::TokenizerConfig};

/// The token that a text follows if nothing is before it: the one for the beginning of a text, or, in a vocabulary that
/// has none, for the end of one. `None` if the tokenizer's files name neither, and it puts no token before a text.
///
/// ```
/// use moeprune_tokenizer::{TokenizerFiles, first_token, load};
///
/// let json = r#"{"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "<s>": 1}}}"#;
/// let config = r#"{"bos_token": "<s>"}"#;
/// let files = TokenizerFiles { tokenizer_json: Some(json.into()), tokenizer_config: Some(config.into()), ..Default::default() };
/// assert_eq!(first_token(&files, &load(&files)?)?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If a file cannot be read as what it is.
pub fn first_token(files: &TokenizerFiles, tokenizer: &Tokenizer) -> Result<Option<u32>, Error> {
    let config = TokenizerConfig::parse(files)?;
    let named = |role| tokenizer.token_to_id(config.role(role).flatten()?);
    let before_text = || Some(*tokenizer.encode("", true).ok()?.get_ids().first()?);
    Ok(named("bos_token").or_else(before_text).or_else(|| named("eos_token")))
}
