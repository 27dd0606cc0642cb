//! Answers that are kept, so that an evaluation that was interrupted asks only what is missing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use moeprune_endpoint::{Journal, Journaled};
use moeprune_eval::{ContinuationScorer, EvalReport, Generator};

use super::{Answering, WithGenerator, WithScorer};
use crate::{Error, Progress};

/// What answers, with its answers kept in a journal as they come.
pub struct KeptAnswers<'a> {
    inner: &'a mut dyn Answering,
    journal: &'a mut Journal,
}

impl fmt::Debug for KeptAnswers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptAnswers").field("journal", &self.journal.path()).finish_non_exhaustive()
    }
}

impl<'a> KeptAnswers<'a> {
    /// What `inner` answers goes to `journal`; what is there is not asked.
    pub fn new(inner: &'a mut dyn Answering, journal: &'a mut Journal) -> Self {
        Self { inner, journal }
    }
}

impl Answering for KeptAnswers<'_> {
    fn write(
        &mut self,
        evaluate: WithGenerator<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let Self { inner, journal } = self;
        let mut progress = Ahead::of(journal, progress);
        let mut kept = |generator: &mut dyn Generator| {
            evaluate(&mut Journaled::new(generator, Some(&mut **journal)))
        };
        inner.write(&mut kept, &mut progress)
    }

    fn choose(
        &mut self,
        evaluate: WithScorer<'_>,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport, Error> {
        let Self { inner, journal } = self;
        let mut progress = Ahead::of(journal, progress);
        let mut kept = |scorer: &mut dyn ContinuationScorer| {
            evaluate(&mut Journaled::new(scorer, Some(&mut **journal)))
        };
        inner.choose(&mut kept, &mut progress)
    }
}

/// A progress that counts what the journal had as done.
#[derive(Debug)]
struct Ahead<'p> {
    inner: &'p mut dyn Progress,
    reused: Arc<AtomicU64>,
    before: u64,
}

impl<'p> Ahead<'p> {
    fn of(journal: &Journal, inner: &'p mut dyn Progress) -> Self {
        let reused = journal.reused();
        let before = reused.load(Ordering::Relaxed);
        Self { inner, reused, before }
    }
}

impl Progress for Ahead<'_> {
    fn begin(&mut self, step: &str, total: u64, unit: &str) {
        self.inner.begin(step, total, unit);
    }

    fn advance(&mut self, done: u64, what: &str) {
        let reused = self.reused.load(Ordering::Relaxed) - self.before;
        self.inner.advance(done + reused, what);
    }

    fn end(&mut self) {
        self.inner.end();
    }

    fn should_stop(&self) -> bool {
        self.inner.should_stop()
    }

    fn note(&mut self, line: &str) {
        self.inner.note(line);
    }
}
