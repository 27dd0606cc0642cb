//! What answers the questions of an evaluation.

use std::sync::Arc;

use moeprune_engine::first_token;
use moeprune_eval::{ContinuationScorer, Error as EvalError, EvalReport, Generator};
use moeprune_model::LanguageModel;

use super::{Evaluated, NativeGenerator, NativeScorer};
use crate::{Error, Execution, Progress, load_tokenizer};

/// An evaluation, to be given what writes texts.
pub type WithGenerator<'a> = &'a mut dyn FnMut(&mut dyn Generator) -> Result<EvalReport, EvalError>;

/// An evaluation, to be given what scores continuations.
pub type WithScorer<'a> =
    &'a mut dyn FnMut(&mut dyn ContinuationScorer) -> Result<EvalReport, EvalError>;

/// What answers the questions of an evaluation: a model in memory, or an engine elsewhere.
///
/// Each method makes a generator or a scorer that reports to `progress`, gives it to `evaluate`, which calls it batch by batch,
/// and returns what that returned. It says with an error of a stop that `progress` wanted to stop.
pub trait Answering {
    /// Evaluates what is written.
    ///
    /// # Errors
    /// As `evaluate`; if nothing can be written.
    fn write(
        &mut self,
        evaluate: WithGenerator<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error>;

    /// Evaluates which continuations are likely.
    ///
    /// # Errors
    /// As `evaluate`; if continuations cannot be scored.
    fn choose(
        &mut self,
        evaluate: WithScorer<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error>;
}

/// A model that is loaded once it answers, and kept for the next task.
pub(crate) struct NativeModel<'a> {
    model: Evaluated<'a>,
    execution: &'a Execution,
    loaded: Option<Arc<LanguageModel>>,
}

impl<'a> NativeModel<'a> {
    pub(crate) fn new(model: Evaluated<'a>, execution: &'a Execution) -> Self {
        Self { model, execution, loaded: None }
    }

    pub(crate) fn load(&mut self) -> Result<Arc<LanguageModel>, Error> {
        if let Some(loaded) = &self.loaded {
            return Ok(Arc::clone(loaded));
        }
        let Evaluated { checkpoint, source, spec } = self.model;
        self.execution.check_whole(checkpoint)?;
        let loaded = Arc::new(LanguageModel::load(source, spec, self.execution.compute())?);
        self.loaded = Some(Arc::clone(&loaded));
        Ok(loaded)
    }
}

impl Answering for NativeModel<'_> {
    fn write(
        &mut self,
        evaluate: WithGenerator<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let checkpoint = self.model.checkpoint;
        let tokenizer = load_tokenizer(checkpoint)?;
        let model = self.load()?;
        let mut generator =
            NativeGenerator::new(model, tokenizer, checkpoint.eos_token_ids()?, progress);
        let report = match evaluate(&mut generator) {
            Err(_) if generator.was_stopped() => return Err(Error::stopped()),
            report => report?,
        };
        let (cut, context) = (generator.prompts_cut(), generator.context());
        note_of_cut(cut, report.n, context, progress);
        Ok(report)
    }

    fn choose(
        &mut self,
        evaluate: WithScorer<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let checkpoint = self.model.checkpoint;
        let tokenizer = load_tokenizer(checkpoint)?;
        let first = first_token(checkpoint, &tokenizer)?;
        let model = self.load()?;
        let mut scorer = NativeScorer::new(model, tokenizer, first, progress);
        let report = match evaluate(&mut scorer) {
            Err(_) if scorer.was_stopped() => return Err(Error::stopped()),
            report => report?,
        };
        let (cut, context) = (scorer.contexts_cut(), scorer.context());
        let asked = report.answers.iter().map(|answer| answer.choices.len()).sum();
        note_of_cut(cut, asked, context, progress);
        Ok(report)
    }
}

fn note_of_cut(cut: usize, prompts: usize, context: usize, progress: &mut dyn Progress) {
    progress.end();
    if cut > 0 {
        progress.note(&format!(
            "note: {cut} of {prompts} prompts did not fit the model's {context} positions and lost their \
             beginning; ask with fewer shots"
        ));
    }
}
