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
    /// No tokenizer is near this; a larger file is something else.
    const MAX_BYTES: u64 = 1 << 30;
    let files = TokenizerFiles::read(|name| model.read_file(Path::new(name), MAX_BYTES))?;
    moeprune_tokenizer::load(&files).map_err(|error| Error::Tokenizer {
        path: Path::new(&model.name()).display().to_string(),
        problem: error.to_string(),
    })
}
