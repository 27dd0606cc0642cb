//! What answers the questions of an evaluation.

use std::sync::Arc;

use moeprune_engine::{AnsweringNeed, ExpertPlace, StreamingRoom, first_token};
use moeprune_eval::{ContinuationScorer, Error as EvalError, EvalReport, Generator};
use moeprune_model::{ExpertProvider, HeldExperts, LanguageModel, StreamedExperts};

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
    place: Option<(AnsweringNeed, ExpertPlace)>,
    loaded: Option<Arc<AnyModel<'a>>>,
}

/// A model whose experts are in memory or where they are stored.
pub(crate) type AnyModel<'a> = LanguageModel<Box<dyn ExpertProvider + 'a>>;

impl<'a> NativeModel<'a> {
    pub(crate) fn new(model: Evaluated<'a>, execution: &'a Execution) -> Self {
        Self { model, execution, place: None, loaded: None }
    }

    /// Where the experts are.
    pub(crate) fn place(&mut self) -> Result<(AnsweringNeed, ExpertPlace), Error> {
        if let Some(place) = self.place {
            return Ok(place);
        }
        let Evaluated { checkpoint, spec, .. } = self.model;
        Ok(*self.place.insert(self.execution.place_experts(checkpoint, spec)?))
    }

    /// Where the model runs.
    pub(crate) fn execution(&self) -> &'a Execution {
        self.execution
    }

    /// How memory is divided, if experts are read when they are needed.
    pub(crate) fn room(&mut self) -> Result<Option<StreamingRoom>, Error> {
        Ok(match self.place()?.1 {
            ExpertPlace::Memory => None,
            ExpertPlace::Storage(room) => Some(room),
        })
    }

    /// Says what memory the model takes, before it is loaded.
    pub(crate) fn say_need(&mut self, progress: &mut dyn Progress) -> Result<(), Error> {
        if self.loaded.is_none() {
            let (need, place) = self.place()?;
            progress.note(&need.memory_line(&place));
        }
        Ok(())
    }

    pub(crate) fn load(&mut self) -> Result<Arc<AnyModel<'a>>, Error> {
        if let Some(loaded) = &self.loaded {
            return Ok(Arc::clone(loaded));
        }
        let Evaluated { source, spec, .. } = self.model;
        let compute = self.execution.compute();
        let experts: Box<dyn ExpertProvider + 'a> = match self.room()? {
            None => Box::new(HeldExperts::load(source, spec, compute)?),
            Some(room) => Box::new(StreamedExperts::new(source, spec, compute, room.experts)),
        };
        let loaded = Arc::new(LanguageModel::with_experts(source, spec, compute, experts)?);
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
        self.say_need(progress)?;
        let model = self.load()?;
        let mut generator =
            NativeGenerator::new(model, tokenizer, checkpoint.eos_token_ids()?, progress);
        if let Some(room) = self.room()? {
            generator = generator.with_limits(room.pass_tokens, room.positions);
        }
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
        self.say_need(progress)?;
        let model = self.load()?;
        let mut scorer = NativeScorer::new(model, tokenizer, first, progress);
        if let Some(room) = self.room()? {
            scorer = scorer.with_pass_tokens(room.pass_tokens);
        }
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
