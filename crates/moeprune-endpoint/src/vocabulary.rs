//! The served model's tokenizer, where the client has it.

use std::fmt;

use moeprune_eval::BoxError;

use crate::{Error, excerpt::excerpt};

/// Reads a text as token ids.
type Encode<'a> = dyn Fn(&str) -> Result<Vec<u32>, BoxError> + 'a;

/// Turns text into the token ids that the served model sees, special tokens at the beginning included.
pub struct Vocabulary<'a> {
    encode: Box<Encode<'a>>,
    first: Option<u32>,
    context: Option<usize>,
}

impl<'a> Vocabulary<'a> {
    /// Of a tokenizer. Each text is read with the special tokens that precede a prompt.
    pub fn new(encode: impl Fn(&str) -> Result<Vec<u32>, BoxError> + 'a) -> Self {
        Self { encode: Box::new(encode), first: None, context: None }
    }

    /// The token that stands before a text that nothing precedes: the model's first or, if it has none, its
    /// end-of-text token.
    #[must_use]
    pub fn with_first(mut self, first: Option<u32>) -> Self {
        self.first = first;
        self
    }

    /// The most tokens that the model takes, if the server does not say less.
    #[must_use]
    pub fn with_context(mut self, context: usize) -> Self {
        self.context = Some(context);
        self
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        (self.encode)(text)
            .map_err(|source| Error::Tokenizer { text: format!("{:?}", excerpt(text, 60)), source })
    }

    pub(crate) fn first(&self) -> Option<u32> {
        self.first
    }

    /// The most tokens of prompt and answer: the server's number or the model's, the smaller one.
    pub(crate) fn context(&self, server: Option<usize>) -> Option<usize> {
        match (self.context, server) {
            (Some(model), Some(server)) => Some(model.min(server)),
            (one, other) => one.or(other),
        }
    }
}

impl fmt::Debug for Vocabulary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("first", &self.first)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
