//! What answers questions: the seam between a task and a model.

use std::fmt;

use crate::{BoxError, Ending};

/// One prompt and how its answer ends.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The text to continue.
    pub prompt: String,
    /// Strings at the first of which the answer ends. They are not part of the answer. An empty
    /// one ends nothing.
    pub stop: Vec<String>,
    /// The most tokens an answer may have.
    pub max_new_tokens: usize,
}

impl Request {
    /// A request to continue `prompt` by at most `max_new_tokens` tokens, or up to one of `stop`.
    pub fn new(prompt: impl Into<String>, stop: Vec<String>, max_new_tokens: usize) -> Self {
        Self { prompt: prompt.into(), stop, max_new_tokens }
    }
}

/// What receives answers as they come: the place in the batch, the text, and how it ended if that is known. Its error
/// ends the call.
pub type NoteAnswer<'a> = &'a mut dyn FnMut(usize, &str, Option<Ending>) -> Result<(), BoxError>;

/// Continues prompts. Implement it for anything that runs a model.
///
/// [`evaluate`](crate::evaluate) calls [`generate`](Self::generate) once per batch, in the order of
/// the documents and never concurrently. A long evaluation reports its progress from here: each
/// call finishes as many documents as it has requests.
///
/// What an implementation must do for the figures to be the harness's:
///
/// * Decode greedily: the likeliest token every time.
/// * End at the model's end-of-sequence token, or after
///   [`max_new_tokens`](Request::max_new_tokens).
/// * Where the prompt and the new tokens together exceed the model's context, drop tokens from
///   the *left* of the prompt, keeping the last `context - max_new_tokens`.
/// * Return the continuation alone, without the prompt, special tokens decoded to nothing.
/// * Answer each request as if it stood alone: neither the other requests of a batch nor earlier
///   calls change an answer.
///
/// Stopping early at one of [`stop`](Request::stop) saves time and is otherwise optional:
/// `evaluate` cuts every text there again.
///
/// # Example
///
/// ```
/// use moeprune_eval::{BoxError, Generator, Request};
///
/// /// Answers every question the same way.
/// struct Constant(&'static str);
///
/// impl Generator for Constant {
///     fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
///         Ok(vec![self.0.to_owned(); requests.len()])
///     }
/// }
///
/// let requests = [Request::new("Question: 6 * 7?\nAnswer:", vec!["Question:".to_owned()], 256)];
/// assert_eq!(Constant(" #### 42").generate(&requests)?, [" #### 42"]);
/// # Ok::<(), BoxError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a generator",
    note = "implement `Generator::generate`: the text that continues each prompt; for a closure that continues \
            one prompt there is `generate_each`"
)]
pub trait Generator {
    /// Continues each prompt of a batch; one text per request, in the same order, and none for an
    /// empty batch.
    ///
    /// # Errors
    ///
    /// Any failure of the model. It ends the evaluation and is passed on as the source of
    /// [`Error::Generate`](crate::Error::Generate).
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError>;

    /// How each text that the last call of [`generate`](Self::generate) returned ended, in the same order; None where
    /// that is not known, as it is by default. What share of answers a model ends by itself is reported where it is.
    fn endings(&self) -> Option<&[Ending]> {
        None
    }

    /// As [`generate`](Self::generate), and `note` receives each answer as soon as it is there: its place in the batch,
    /// its text, and how it ended if that is known. Places come in any order, each once. Unless it is implemented, all are noted at the end.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate); and the error of `note`, which ends the call.
    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        let outputs = self.generate(requests)?;
        let endings = self.endings().unwrap_or_default();
        for (place, output) in outputs.iter().enumerate() {
            note(place, output, endings.get(place).copied())?;
        }
        Ok(outputs)
    }

    /// Requests whose answers are kept from earlier, so that they are not asked: for what counts how it treats prompts.
    /// Does nothing unless it is implemented.
    ///
    /// # Errors
    ///
    /// If a prompt cannot be read.
    fn pass_over(&mut self, requests: &[Request]) -> Result<(), BoxError> {
        let _ = requests;
        Ok(())
    }
}

impl<G: Generator + ?Sized> Generator for &mut G {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        (**self).generate(requests)
    }

    fn endings(&self) -> Option<&[Ending]> {
        (**self).endings()
    }

    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        (**self).generate_noting(requests, note)
    }

    fn pass_over(&mut self, requests: &[Request]) -> Result<(), BoxError> {
        (**self).pass_over(requests)
    }
}

impl<G: Generator + ?Sized> Generator for Box<G> {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        (**self).generate(requests)
    }

    fn endings(&self) -> Option<&[Ending]> {
        (**self).endings()
    }

    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        (**self).generate_noting(requests, note)
    }

    fn pass_over(&mut self, requests: &[Request]) -> Result<(), BoxError> {
        (**self).pass_over(requests)
    }
}

/// Makes a [`Generator`] of a closure that continues one prompt.
///
/// ```
/// use moeprune_eval::{Generator, Request, generate_each};
///
/// let mut shout = generate_each(|request| Ok(request.prompt.to_uppercase()));
/// let requests = [Request::new("a", vec![], 8), Request::new("b", vec![], 8)];
/// assert_eq!(shout.generate(&requests)?, ["A", "B"]);
/// # Ok::<(), moeprune_eval::BoxError>(())
/// ```
pub fn generate_each<F>(generate: F) -> GenerateEach<F>
where
    F: FnMut(&Request) -> Result<String, BoxError>,
{
    GenerateEach(generate)
}

/// The [`Generator`] made by [`generate_each`].
pub struct GenerateEach<F>(F);

impl<F> Generator for GenerateEach<F>
where
    F: FnMut(&Request) -> Result<String, BoxError>,
{
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        requests.iter().map(&mut self.0).collect()
    }
}

impl<F> fmt::Debug for GenerateEach<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GenerateEach").finish_non_exhaustive()
    }
}
