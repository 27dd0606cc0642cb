//! Ids that a model's embedding has no row for.

use std::fmt;

use tokenizers::Tokenizer;

/// A token that a text has and the model does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeyondVocabulary {
    /// Its id.
    pub id: u32,
    /// Its text, if the tokenizer knows the id.
    pub token: Option<String>,
    /// Rows of the model's embedding.
    pub rows: usize,
}

/// The first of `ids` that is not below `rows`. A tokenizer may know such ids, a pad token that was added after training for one:
/// they are an error where they occur, and only there.
#[must_use]
pub fn id_beyond(tokenizer: &Tokenizer, ids: &[u32], rows: usize) -> Option<BeyondVocabulary> {
    let id = *ids.iter().find(|&&id| id as usize >= rows)?;
    Some(BeyondVocabulary { id, token: tokenizer.id_to_token(id), rows })
}

impl fmt::Display for BeyondVocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token id {}", self.id)?;
        if let Some(token) = &self.token {
            write!(f, " ({token:?})")?;
        }
        write!(
            f,
            " does not fit the model, whose embedding has {} rows (ids 0 to {}); remove that token from the text, or take the \
             tokenizer that belongs to the model",
            self.rows,
            self.rows.saturating_sub(1)
        )
    }
}
