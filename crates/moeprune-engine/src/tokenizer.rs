//! The tokenizer beside a model.

use std::path::Path;

use moeprune_tokenizer::TokenizerFiles;
use tokenizers::Tokenizer;

use crate::{Error, Model};

/// Loads the tokenizer from the files of the model's directory: `tokenizer.json`, or others where there is none
/// ([`moeprune_tokenizer::load`]). Its padding and truncation are switched off.
///
/// It may know ids that the embedding has no row for; one that a text has is an error there.
///
/// # Errors
/// If there is none, a file is a link out of the model's directory, or it cannot be used.
pub fn load_tokenizer(model: &dyn Model) -> Result<Tokenizer, Error> {
    moeprune_tokenizer::load(&files(model)?).map_err(|error| unusable(model, &error))
}

/// The token that a text follows if nothing is before it ([`moeprune_tokenizer::first_token`]), if there is one.
///
/// # Errors
/// As [`load_tokenizer`].
pub fn first_token(model: &dyn Model, tokenizer: &Tokenizer) -> Result<Option<u32>, Error> {
    moeprune_tokenizer::first_token(&files(model)?, tokenizer)
        .map_err(|error| unusable(model, &error))
}

fn files(model: &dyn Model) -> Result<TokenizerFiles, Error> {
    /// No tokenizer is near this; a larger file is something else.
    const MAX_BYTES: u64 = 1 << 30;
    TokenizerFiles::read(|name| model.read_file(Path::new(name), MAX_BYTES))
}

fn unusable(model: &dyn Model, error: &moeprune_tokenizer::Error) -> Error {
    Error::Tokenizer {
        path: Path::new(&model.name()).display().to_string(),
        problem: error.to_string(),
    }
}
