//! The tokenizer beside a model.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::{Error, Model};

/// Loads `tokenizer.json` from the model's directory, its padding and truncation switched off.
///
/// # Errors
/// If there is none or it is a link out of the model's directory, it cannot be parsed, or it knows
/// token ids that the embedding has no row for.
pub fn load_tokenizer(model: &dyn Model) -> Result<Tokenizer, Error> {
    const FILE: &str = "tokenizer.json";
    /// No tokenizer is near this; a larger file is something else.
    const MAX_BYTES: u64 = 1 << 30;
    let path = Path::new(&model.name()).join(FILE);
    let error = |problem: String| Error::Tokenizer { path: path.display().to_string(), problem };
    let Some(text) = model.read_file(Path::new(FILE), MAX_BYTES)? else {
        return Err(error(
            "there is no such file; text needs it. Put the model's tokenizer.json there, or pass \
             a token file: JSON lines of {\"tokens\": [..]}"
                .into(),
        ));
    };
    let mut tokenizer = Tokenizer::from_bytes(text)
        .map_err(|e| error(format!("cannot be parsed: {e}; download it again")))?;
    // Released files often carry settings of their last training run; both would change prompts.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| error(format!("its truncation cannot be switched off: {e}")))?;
    let highest = tokenizer.get_vocab(true).into_values().max();
    let vocab = model.spec().vocab;
    if highest.is_some_and(|id| id as usize >= vocab) {
        return Err(error(format!(
            "its largest token id is {}, but the model's embedding has {vocab} rows: it belongs \
             to another model",
            highest.unwrap_or(0)
        )));
    }
    Ok(tokenizer)
}
