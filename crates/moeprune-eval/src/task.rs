//! Questions, and how answers are judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BoxError, Document, Request};

/// A data set's prompts and scoring. Implement it to evaluate on something other than GSM8K.
///
/// [`evaluate`](crate::evaluate) calls [`requests`](Self::requests) once, with the documents in
/// order and already cut to the limit, then [`score`](Self::score) once per document as the answers
/// come in. Neither may depend on what was answered before, so that a limited run gives the first
/// answers of a full one.
///
/// # Example
///
/// A task of one filter, which scores an answer by its last word:
///
/// ```
/// use std::collections::BTreeMap;
/// use moeprune_eval::{
///     BoxError, Document, EvaluateOptions, Extraction, Request, Task, evaluate, generate_each,
/// };
///
/// struct LastWord;
///
/// impl Task for LastWord {
///     fn name(&self) -> &str {
///         "last_word"
///     }
///
///     fn requests(&self, documents: &[Document]) -> Result<Vec<Request>, BoxError> {
///         let ask = |d: &Document| Request::new(&*d.question, vec!["\n".to_owned()], 16);
///         Ok(documents.iter().map(ask).collect())
///     }
///
///     fn score(&self, document: &Document, output: &str) -> BTreeMap<String, Extraction> {
///         let word = output.split_whitespace().last().unwrap_or_default();
///         let right = f64::from(u8::from(word == document.answer));
///         BTreeMap::from([("last-word".to_owned(), Extraction::new(word, right))])
///     }
/// }
///
/// let documents = [Document::new("Colour of the sky?", "blue")];
/// let mut model = generate_each(|_| Ok("It is blue\nand wide".to_owned()));
/// let report = evaluate(&LastWord, &documents, &mut model, &EvaluateOptions::default())?;
/// assert_eq!(report.metrics["last-word"].mean, 1.0);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an evaluation task",
    note = "implement `Task::name`, `requests` and `score`: its name in reports, a prompt per document, and \
            what an answer is worth"
)]
pub trait Task {
    /// The name that goes into the report.
    fn name(&self) -> &str;

    /// How many solved examples precede each question. Zero unless the task says otherwise.
    fn fewshot(&self) -> usize {
        0
    }

    /// Turns documents into one request each, in the same order. The request for a document may
    /// depend on that document and those before it, never on later ones.
    ///
    /// # Errors
    ///
    /// If a prompt cannot be formed. It ends the evaluation before anything is generated and is
    /// passed on as the source of [`Error::Task`](crate::Error::Task).
    fn requests(&self, documents: &[Document]) -> Result<Vec<Request>, BoxError>;

    /// Judges one answer, already cut at the request's stop strings, by each of the task's
    /// filters. The keys are the filters' names, the same for every document; a score is between
    /// 0 (wrong) and 1 (right). Any text must be scored: a model may write anything.
    fn score(&self, document: &Document, output: &str) -> BTreeMap<String, Extraction>;
}

/// What one filter read out of one answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Extraction {
    /// The text taken for the answer; [`INVALID`](crate::INVALID) if there was none.
    pub extracted: String,
    /// 1 if it is right, 0 if it is wrong.
    pub score: f64,
}

impl Extraction {
    /// What was read, and what it is worth.
    pub fn new(extracted: impl Into<String>, score: f64) -> Self {
        Self { extracted: extracted.into(), score }
    }
}
