//! What answers, with a journal of its answers.

use std::fmt::Write as _;

use moeprune_eval::{
    BoxError, Continuation, ContinuationScorer, Ending, Generator, LogLikelihood, NoteAnswer,
    Request,
};
use sha2::{Digest as _, Sha256};

use crate::{Journal, journal::Kept};

/// A generator or a scorer whose answers are kept in a [`Journal`], and that asks only what is not in it yet.
///
/// A request is known by its content, so that batches, a limit and the order may differ between two runs. Answers
/// are written as they come ([`Generator::generate_noting`]).
///
/// ```
/// use moeprune_endpoint::{Journal, Journaled, RunKey};
/// use moeprune_eval::{Generator as _, Request, generate_each};
///
/// let folder = tempfile::tempdir()?;
/// let run = RunKey::new().with("model", "m").with("task", "t");
/// let open = || Journal::open(&folder.path().join("answers.jsonl"), &run);
/// let requests = [Request::new("6 * 7 =", vec![], 8)];
///
/// let model = generate_each(|_| Ok(" 42".to_owned()));
/// assert_eq!(Journaled::new(model, Some(&mut open()?)).generate(&requests)?, [" 42"]);
///
/// let down = generate_each(|_| Err("the server is down".into()));
/// assert_eq!(Journaled::new(down, Some(&mut open()?)).generate(&requests)?, [" 42"]);
/// # Ok::<(), moeprune_eval::BoxError>(())
/// ```
#[derive(Debug)]
pub struct Journaled<'j, M> {
    inner: M,
    journal: Option<&'j mut Journal>,
    /// How the answers of the last call ended, if it is known of all.
    endings: Option<Vec<Ending>>,
}

impl<'j, M> Journaled<'j, M> {
    /// What `inner` answers goes to `journal`, if there is one.
    pub fn new(inner: M, journal: Option<&'j mut Journal>) -> Self {
        Self { inner, journal, endings: None }
    }

    /// What answers.
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

impl<M: Generator> Generator for Journaled<'_, M> {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        self.generate_noting(requests, &mut |_, _, _| Ok(()))
    }

    fn endings(&self) -> Option<&[Ending]> {
        match self.journal {
            None => self.inner.endings(),
            Some(_) => self.endings.as_deref(),
        }
    }

    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        let Some(journal) = &mut self.journal else {
            return self.inner.generate_noting(requests, note);
        };
        self.endings = None;
        let mut endings = vec![None; requests.len()];
        let keys: Vec<String> = requests.iter().map(key_of_request).collect();
        let (mut outputs, mut missing) = (vec![String::new(); requests.len()], Vec::new());
        for (place, key) in keys.iter().enumerate() {
            match journal.take(key) {
                Some(Kept::Text { text, ended }) => {
                    note(place, &text, ended)?;
                    (outputs[place], endings[place]) = (text, ended);
                }
                _ => missing.push(place),
            }
        }
        self.inner.pass_over(&others(requests, &missing))?;
        if missing.is_empty() {
            self.endings = endings.into_iter().collect();
            return Ok(outputs);
        }
        let asked: Vec<Request> = missing.iter().map(|&place| requests[place].clone()).collect();
        let new = self.inner.generate_noting(&asked, &mut |at, text, ended| {
            let place = missing[at];
            journal.keep(&keys[place], Kept::Text { text: text.to_owned(), ended })?;
            endings[place] = ended;
            note(place, text, ended)
        })?;
        check_count(new.len(), missing.len())?;
        for (place, text) in missing.into_iter().zip(new) {
            outputs[place] = text;
        }
        self.endings = endings.into_iter().collect();
        Ok(outputs)
    }
}

impl<M: ContinuationScorer> ContinuationScorer for Journaled<'_, M> {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        self.score_noting(requests, &mut |_, _| Ok(()))
    }

    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        let Some(journal) = &mut self.journal else {
            return self.inner.score_noting(requests, note);
        };
        let keys: Vec<String> = requests.iter().map(key_of_continuation).collect();
        let mut scores = vec![LogLikelihood::new(0.0, 0, false); requests.len()];
        let mut missing = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            match journal.take(key) {
                Some(Kept::Score { sum, tokens, greedy }) => {
                    scores[place] = LogLikelihood::new(sum, tokens, greedy);
                    note(place, scores[place])?;
                }
                _ => missing.push(place),
            }
        }
        self.inner.pass_over(&others(requests, &missing))?;
        if missing.is_empty() {
            return Ok(scores);
        }
        let asked: Vec<Continuation> =
            missing.iter().map(|&place| requests[place].clone()).collect();
        let new = self.inner.score_noting(&asked, &mut |at, score| {
            let place = missing[at];
            journal.keep(&keys[place], score.into())?;
            note(place, score)
        })?;
        check_count(new.len(), missing.len())?;
        for (place, score) in missing.into_iter().zip(new) {
            scores[place] = score;
        }
        Ok(scores)
    }
}

/// The requests that are not missing, whose places are in order.
fn others<R: Clone>(requests: &[R], missing: &[usize]) -> Vec<R> {
    let kept = |place: &usize| missing.binary_search(place).is_err();
    (0..requests.len()).filter(kept).map(|place| requests[place].clone()).collect()
}

fn check_count(found: usize, asked: usize) -> Result<(), BoxError> {
    if found == asked {
        Ok(())
    } else {
        Err(format!("{found} answers came for {asked} requests").into())
    }
}

fn key_of_request(request: &Request) -> String {
    let tokens = request.max_new_tokens.to_string();
    let parts = ["answer", &tokens, &request.prompt].into_iter();
    key(parts.chain(request.stop.iter().map(String::as_str)))
}

fn key_of_continuation(pair: &Continuation) -> String {
    key(["score", &pair.context, &pair.text].into_iter())
}

/// The hash of some texts, each with its length, in hexadecimal digits.
fn key<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
