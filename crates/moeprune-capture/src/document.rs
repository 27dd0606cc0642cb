//! Calibration documents, and where they come from.

use std::borrow::Cow;

use moeprune_core::StageError;

/// Gives calibration text, document by document.
///
/// [`token_blocks`](crate::token_blocks) walks over the documents once, in order, on the thread
/// that called it. An implementation must give the same documents in the same order every time:
/// the blocks drawn from it, and so everything computed from them, depend on that.
///
/// ```
/// use moeprune_capture::{CalibrationSource, Document, Documents};
/// use moeprune_core::StageError;
///
/// /// The rows of a table one already has in memory.
/// struct Reviews(Vec<(u8, String)>);
///
/// impl CalibrationSource for Reviews {
///     fn documents(&self) -> Result<Documents<'_>, StageError> {
///         Ok(Box::new(self.0.iter().map(|(stars, text)| {
///             Ok(Document::text(format!("{stars} stars: {text}")))
///         })))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` gives no calibration text",
    note = "implement `CalibrationSource::documents`: the documents of the text, in the same order each time"
)]
pub trait CalibrationSource {
    /// The documents from the first to the last.
    ///
    /// # Errors
    /// If the text cannot be opened; a document that cannot be read is an error of the iterator
    /// and ends the walk.
    fn documents(&self) -> Result<Documents<'_>, StageError>;

    /// What to call the text in an error: a file name, or what it is.
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("the calibration text")
    }
}

/// An iterator over documents, from [`CalibrationSource::documents`].
pub type Documents<'a> = Box<dyn Iterator<Item = Result<Document, StageError>> + 'a>;

/// One document of a calibration text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Text, or tokens ready to use.
    pub content: Content,
    /// Line of the file it begins on, counted from 1, if it came from one. Errors say the
    /// document's number where there is none.
    pub line: Option<u64>,
}

/// What a document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "either it was tokenised or it was not")]
pub enum Content {
    /// Text; the tokenizer turns it into tokens and adds its special tokens.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl Document {
    /// A document of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: Content::Text(text.into()), line: None }
    }

    /// A document of token ids.
    #[must_use]
    pub fn tokens(tokens: impl Into<Vec<u32>>) -> Self {
        Self { content: Content::Tokens(tokens.into()), line: None }
    }

    /// The same document, said to begin on this line of its file.
    #[must_use]
    pub fn at_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl CalibrationSource for Vec<Document> {
    fn documents(&self) -> Result<Documents<'_>, StageError> {
        Ok(Box::new(self.iter().cloned().map(Ok)))
    }
}

impl<T: CalibrationSource + ?Sized> CalibrationSource for &T {
    fn documents(&self) -> Result<Documents<'_>, StageError> {
        (**self).documents()
    }

    fn name(&self) -> Cow<'_, str> {
        (**self).name()
    }
}
