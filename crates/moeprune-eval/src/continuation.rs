//! How likely a model finds a text after another: the seam between multiple choice and a model.

use std::fmt;

use crate::{BoxError, whitespace::strip_end};

/// A text, and what may follow it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Continuation {
    /// What is given. May be empty: the continuation then follows the model's first token.
    pub context: String,
    /// What is scored; not empty.
    pub text: String,
}

impl Continuation {
    /// `text` after `context`.
    pub fn new(context: impl Into<String>, text: impl Into<String>) -> Self {
        Self { context: context.into(), text: text.into() }
    }

    /// The same text, cut where the harness cuts it into tokens: white space at the end of the context belongs to
    /// the continuation, as tokenizers join it with what follows.
    ///
    /// ```
    /// # use moeprune_eval::Continuation;
    /// let cut = Continuation::new("The sky is ", "blue").with_spaces_moved();
    /// assert_eq!(cut, Continuation::new("The sky is", " blue"));
    /// ```
    pub fn with_spaces_moved(&self) -> Self {
        let context = strip_end(&self.context);
        Self::new(context, format!("{}{}", &self.context[context.len()..], self.text))
    }
}

/// How likely a continuation is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogLikelihood {
    /// The natural logarithm of its probability given the context: summed over its tokens, in nats, at most 0.
    pub sum: f64,
    /// Number of tokens of the continuation.
    pub tokens: usize,
    /// Whether each of its tokens is the likeliest one: greedy decoding would write it.
    pub is_greedy: bool,
}

impl LogLikelihood {
    /// A sum of nats over so many tokens.
    pub fn new(sum: f64, tokens: usize, is_greedy: bool) -> Self {
        Self { sum, tokens, is_greedy }
    }
}

/// Scores continuations. Implement it for anything that runs a model.
///
/// A multiple-choice evaluation calls [`score`](Self::score) once per batch, in the order of the documents and
/// never concurrently. What an implementation must do for the figures to be the harness's:
///
/// * Cut each pair by [`Continuation::with_spaces_moved`], then count the context's tokens: those of the context
///   alone, with the special tokens that the tokenizer puts before a text. The continuation's tokens are those of
///   the whole text beyond that number.
/// * Give an empty context the model's first (or, if it has none, its end-of-text) token.
/// * Where the tokens exceed the model's context, drop them from the *left*.
/// * Score each pair as if it stood alone: neither the others of a batch nor earlier calls change it.
///
/// # Example
///
/// ```
/// use moeprune_eval::{BoxError, Continuation, ContinuationScorer, LogLikelihood};
///
/// /// Thinks every byte equally likely.
/// struct Uniform;
///
/// impl ContinuationScorer for Uniform {
///     fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
///         let one = |pair: &Continuation| {
///             let bytes = pair.with_spaces_moved().text.len();
///             LogLikelihood::new(-(256.0_f64).ln() * bytes as f64, bytes, false)
///         };
///         Ok(requests.iter().map(one).collect())
///     }
/// }
///
/// let choices = [Continuation::new("The sky is", " blue"), Continuation::new("The sky is", " made of wood")];
/// let scores = Uniform.score(&choices)?;
/// assert!(scores[0].sum > scores[1].sum);
/// # Ok::<(), BoxError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not score continuations",
    note = "implement `ContinuationScorer::score`: the log-likelihood of each continuation after its context"
)]
pub trait ContinuationScorer {
    /// The log-likelihood of each continuation; one per request, in the same order, and none for an empty batch.
    ///
    /// # Errors
    ///
    /// Any failure of the model. It ends the evaluation and is passed on as its source.
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError>;

    /// As [`score`](Self::score), and `note` receives each result as soon as it is there, with its place in the batch.
    /// Places come in any order, each once. Unless it is implemented, all are noted at the end.
    ///
    /// # Errors
    ///
    /// As [`score`](Self::score); and the error of `note`, which ends the call.
    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        let scores = self.score(requests)?;
        for (place, score) in scores.iter().enumerate() {
            note(place, *score)?;
        }
        Ok(scores)
    }

    /// Requests whose answers are kept from earlier, so that they are not asked: for what counts how it treats prompts.
    /// Does nothing unless it is implemented.
    ///
    /// # Errors
    ///
    /// If a prompt cannot be read.
    fn pass_over(&mut self, requests: &[Continuation]) -> Result<(), BoxError> {
        let _ = requests;
        Ok(())
    }
}

impl<S: ContinuationScorer + ?Sized> ContinuationScorer for &mut S {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        (**self).score(requests)
    }

    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        (**self).score_noting(requests, note)
    }

    fn pass_over(&mut self, requests: &[Continuation]) -> Result<(), BoxError> {
        (**self).pass_over(requests)
    }
}

impl<S: ContinuationScorer + ?Sized> ContinuationScorer for Box<S> {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        (**self).score(requests)
    }

    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        (**self).score_noting(requests, note)
    }

    fn pass_over(&mut self, requests: &[Continuation]) -> Result<(), BoxError> {
        (**self).pass_over(requests)
    }
}

/// Makes a [`ContinuationScorer`] of a closure that scores one pair.
///
/// ```
/// use moeprune_eval::{Continuation, ContinuationScorer, LogLikelihood, score_each_continuation};
///
/// let mut short = score_each_continuation(|pair| Ok(LogLikelihood::new(-(pair.text.len() as f64), 1, false)));
/// assert_eq!(short.score(&[Continuation::new("a", " b")])?[0].sum, -2.0);
/// # Ok::<(), moeprune_eval::BoxError>(())
/// ```
pub fn score_each_continuation<F>(score: F) -> ScoreEachContinuation<F>
where
    F: FnMut(&Continuation) -> Result<LogLikelihood, BoxError>,
{
    ScoreEachContinuation(score)
}

/// The [`ContinuationScorer`] made by [`score_each_continuation`].
pub struct ScoreEachContinuation<F>(F);

impl<F> ContinuationScorer for ScoreEachContinuation<F>
where
    F: FnMut(&Continuation) -> Result<LogLikelihood, BoxError>,
{
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        requests.iter().map(&mut self.0).collect()
    }
}

impl<F> fmt::Debug for ScoreEachContinuation<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScoreEachContinuation").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_go_to_what_follows() {
        let check = |context: &str, text: &str, expected: (&str, &str)| {
            let cut = Continuation::new(context, text).with_spaces_moved();
            assert_eq!((&*cut.context, &*cut.text), expected, "{context:?} {text:?}");
        };
        check("a", " b", ("a", " b"));
        check("a ", "b", ("a", " b"));
        check("a \n", "b", ("a", " \nb"));
        check("", "b", ("", "b"));
        check("  ", "b", ("", "  b"));
    }
}
