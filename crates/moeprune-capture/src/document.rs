//! Calibration documents, and where they come from.

use std::{borrow::Cow, fmt, sync::Arc};

use moeprune_core::StageError;

use crate::TokenRow;

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
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Document {
    /// Text, or tokens ready to use.
    pub content: Content,
    /// Where it begins, if it came from a file. Errors say the document's number where that is not known.
    pub place: Option<Place>,
}

/// What a document holds.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "by what is left for a tokenizer to do")]
pub enum Content {
    /// Text; the tokenizer turns it into tokens and adds its special tokens.
    Text(String),
    /// Text in which special tokens are written out, as chat templates make it; the tokenizer adds none.
    Rendered(String),
    /// Token ids that the source has made of a text, special tokens included: what a text too long to be
    /// tokenised at once is given as.
    Encoded(Arc<TokenRow>),
    /// Token ids that are the data, taken as they are. Documents of the length of a block are ready-made blocks.
    Tokens(Vec<u32>),
}

impl Content {
    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Rendered(text) => text.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
            Self::Encoded(row) => size_of::<u32>() * row.len(),
        }
    }
}

/// Where a document begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Option<Arc<str>>,
    unit: &'static str,
    number: u64,
}

impl Place {
    /// The `number`-th `unit` of a file, for example line 3, counted from 1.
    #[must_use]
    pub fn new(unit: &'static str, number: u64) -> Self {
        Self { file: None, unit, number }
    }

    /// The same, of this file of a text that has several.
    #[must_use]
    pub fn in_file(self, file: &Arc<str>) -> Self {
        Self { file: Some(file.clone()), ..self }
    }

    /// As messages name it; `text` is what the whole text is called.
    pub(crate) fn of(&self, text: &str) -> String {
        format!("{} {self}", self.file.as_deref().unwrap_or(text))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.unit, self.number)
    }
}

impl Document {
    /// A document that holds this.
    #[must_use]
    pub fn new(content: Content) -> Self {
        Self { content, place: None }
    }

    /// A document of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Content::Text(text.into()))
    }

    /// A document of token ids.
    #[must_use]
    pub fn tokens(tokens: impl Into<Vec<u32>>) -> Self {
        Self::new(Content::Tokens(tokens.into()))
    }

    /// The same document, said to begin there.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
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
