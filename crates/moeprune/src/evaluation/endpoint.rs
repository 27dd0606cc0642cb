//! Questions asked of a model that an engine serves.

mod run_key;

use std::cell::RefCell;

use moeprune_checkpoint::Checkpoint;
use moeprune_endpoint::{
    Endpoint, EndpointGenerator, EndpointScorer, Error as EndpointError, Vocabulary,
};
use moeprune_engine::first_token;
use moeprune_eval::{
    BoxError, Continuation, ContinuationScorer, Ending, Error as EvalError, EvalReport, Generator,
    LogLikelihood, NoteAnswer, Request,
};
use tokenizers::Tokenizer;

pub use run_key::native_run_key;

use super::{Answering, Evaluation, PERPLEXITY, Score, WithGenerator, WithScorer, evaluate_with};
use crate::{Error, Progress, load_tokenizer};

/// A model behind an endpoint, which answers in place of one in memory.
#[derive(Debug)]
pub struct ServedModel {
    endpoint: Endpoint,
    reader: Option<Reader>,
}

/// The model's tokenizer and what goes with it.
#[derive(Debug)]
struct Reader {
    tokenizer: Tokenizer,
    first: Option<u32>,
    context: usize,
    /// What tells the checkpoint from others of the same form.
    files: String,
}

impl ServedModel {
    /// A model behind an endpoint, of which nothing else is known: prompts are sent as text.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, reader: None }
    }

    /// Reads prompts with the tokenizer of this checkpoint, which is that of the served model or was cut from it.
    ///
    /// # Errors
    /// If the tokenizer or the checkpoint's files cannot be read.
    pub fn read_by(mut self, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let tokenizer = load_tokenizer(checkpoint)?;
        let first = first_token(checkpoint, &tokenizer)?;
        let context = checkpoint.spec().max_positions;
        let files = run_key::files_hash(checkpoint)?;
        self.reader = Some(Reader { tokenizer, first, context, files });
        Ok(self)
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Evaluates a model behind an endpoint on a task of questions.
///
/// # Errors
/// As [`evaluate_with`]; if the task is perplexity, which takes the model's own files.
pub fn evaluate_served(
    served: &mut dyn Answering,
    what: &Evaluation<'_>,
    progress: &mut dyn Progress,
) -> Result<Score, Error> {
    if what.task == PERPLEXITY {
        return Err(Error::Request(
            "perplexity is measured on the model's own files: give MODEL and leave --endpoint out"
                .into(),
        ));
    }
    // How many calls are made at a time is the endpoint's.
    evaluate_with(served, &Evaluation { batch: usize::MAX, ..what.clone() }, progress)
}

impl Answering for ServedModel {
    fn write(
        &mut self,
        evaluate: WithGenerator<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let Self { endpoint, reader } = self;
        let shared = RefCell::new(&mut *progress);
        let vocabulary = reader.as_ref().map(Reader::vocabulary);
        let should_stop = || should_stop(endpoint, &shared);
        let generator =
            EndpointGenerator::new_stopped_by(endpoint.clone(), vocabulary, should_stop)?;
        if reader.is_some() && !generator.sends_ids() {
            shared.borrow_mut().note(
                "note: the server takes prompts as text only, so it reads and judges them itself",
            );
        }
        let mut shown = Shown { inner: generator, progress: &shared, done: 0 };
        let report = evaluate(&mut shown);
        let cut = shown.inner.prompts_cut();
        finish(report, Asked { endpoint, cut }, &mut **shared.borrow_mut())
    }

    fn choose(
        &mut self,
        evaluate: WithScorer<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let Self { endpoint, reader } = self;
        let shared = RefCell::new(&mut *progress);
        let vocabulary = reader.as_ref().map(Reader::vocabulary);
        let mut scorer = EndpointScorer::new(endpoint.clone(), vocabulary)
            .stopped_by(|| should_stop(endpoint, &shared));
        // Also where a journal has all answers: it cannot be of a server that has none to give.
        scorer.probe()?;
        let mut shown = Shown { inner: scorer, progress: &shared, done: 0 };
        let report = evaluate(&mut shown);
        let cut = shown.inner.prompts_cut();
        finish(report, Asked { endpoint, cut }, &mut **shared.borrow_mut())
    }
}

impl Reader {
    fn vocabulary(&self) -> Vocabulary<'_> {
        let encode = |text: &str| Ok(self.tokenizer.encode(text, true)?.get_ids().to_vec());
        Vocabulary::new(encode).with_first(self.first).with_context(self.context)
    }
}

/// Whether to stop; what there is to say meanwhile is said.
fn should_stop(endpoint: &Endpoint, progress: &RefCell<&mut dyn Progress>) -> bool {
    if let Some(line) = endpoint.news() {
        progress.borrow_mut().note(&line);
    }
    progress.borrow().should_stop()
}

/// What was asked, once it is over.
struct Asked<'a> {
    endpoint: &'a Endpoint,
    cut: usize,
}

/// A stop is no failure; what a reader of the figures must know is said.
fn finish(
    report: Result<EvalReport, EvalError>,
    asked: Asked<'_>,
    progress: &mut dyn Progress,
) -> Result<EvalReport, Error> {
    let report =
        report.map_err(|error| if is_stop(&error) { Error::stopped() } else { error.into() })?;
    progress.end();
    if asked.cut > 0 {
        progress.note(&format!(
            "note: {} prompts did not fit the server's context and lost their beginning; ask with fewer shots",
            asked.cut
        ));
    }
    let repeated = asked.endpoint.repeated();
    if repeated > 0 {
        progress.note(&format!(
            "note: {repeated} calls failed for a reason that passed, and were made again"
        ));
    }
    Ok(report)
}

fn is_stop(error: &EvalError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<EndpointError>().is_some_and(EndpointError::is_stop) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What answers, with its progress shown.
struct Shown<'p, 'a, M> {
    inner: M,
    progress: &'p RefCell<&'a mut dyn Progress>,
    done: u64,
}

impl<M: Generator> Generator for Shown<'_, '_, M> {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        self.generate_noting(requests, &mut |_, _, _| Ok(()))
    }

    fn endings(&self) -> Option<&[Ending]> {
        self.inner.endings()
    }

    fn pass_over(&mut self, requests: &[Request]) -> Result<(), BoxError> {
        self.inner.pass_over(requests)
    }

    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        let Self { inner, progress, done } = self;
        inner.generate_noting(requests, &mut |place, text, ended| {
            *done += 1;
            progress.borrow_mut().advance(*done, "");
            note(place, text, ended)
        })
    }
}

impl<M: ContinuationScorer> ContinuationScorer for Shown<'_, '_, M> {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        self.score_noting(requests, &mut |_, _| Ok(()))
    }

    fn pass_over(&mut self, requests: &[Continuation]) -> Result<(), BoxError> {
        self.inner.pass_over(requests)
    }

    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        let Self { inner, progress, done } = self;
        inner.score_noting(requests, &mut |place, score| {
            *done += 1;
            progress.borrow_mut().advance(*done, "");
            note(place, score)
        })
    }
}
