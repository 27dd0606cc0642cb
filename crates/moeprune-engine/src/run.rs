//! A run that writes a pruned checkpoint, and what is left of it when it is interrupted.

use std::{ops::Range, path::Path};

use moeprune_checkpoint::{Checkpoint, OutputDirectory};
use moeprune_core::{PartOf, SameModel};

use crate::{
    Error, Model, StageClock,
    session::{Journal, Resume, RunIdentity, Session, folder, unfinished},
};

/// A place claimed for a pruned checkpoint, the journal of the work on it, and its clock.
///
/// No other process can write to the place while this lives, and nothing is visible under its name
/// before the work is complete.
#[derive(Debug)]
pub struct Run<'a> {
    pub(crate) origin: &'a Checkpoint,
    pub(crate) output: OutputDirectory,
    pub(crate) session: Session,
    pub(crate) clock: StageClock,
    /// Which of the layers are written, if not all are.
    pub(crate) part: Option<PartOf>,
    /// What an interrupted run has written about itself, until this one has begun.
    unfinished: Option<Journal>,
}

impl<'a> Run<'a> {
    /// Claims `out` for a pruned copy of a checkpoint.
    ///
    /// # Errors
    /// If `out` exists, lies in the model or the model in it, another process is writing to it, or
    /// an interrupted run left finished layers there and `resume` says not to resume it.
    pub fn claim(out: &Path, origin: &'a Checkpoint, resume: Resume) -> Result<Self, Error> {
        Self::of(OutputDirectory::open(out, origin)?, origin, resume)
    }

    /// Claims `out` for a part of a pruned copy of a checkpoint: a folder with `record` in it.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub(crate) fn claim_part(
        out: &Path,
        origin: &'a Checkpoint,
        resume: Resume,
        (part, record): (PartOf, &str),
    ) -> Result<Self, Error> {
        let output = OutputDirectory::open_part(out, origin, record)?;
        Ok(Self { part: Some(part), ..Self::of(output, origin, resume)? })
    }

    fn of(
        mut output: OutputDirectory,
        origin: &'a Checkpoint,
        resume: Resume,
    ) -> Result<Self, Error> {
        let mut left = None;
        if output.is_leftover() {
            // What it holds may be hours of work.
            output.set_keep(true);
            left = unfinished(output.state(), resume)?;
            if left.is_none() {
                output.clear()?;
                output.set_keep(false);
            }
        }
        Ok(Self {
            origin,
            output,
            session: Session::in_memory(),
            clock: StageClock::default(),
            part: None,
            unfinished: left,
        })
    }

    /// The checkpoint from which what stays as it is is copied, byte for byte: weights, config, tokenizer
    /// and other files.
    #[must_use]
    pub fn origin(&self) -> &'a Checkpoint {
        self.origin
    }

    /// Where the finished layers of an interrupted run lie, as long as this one has not begun.
    #[must_use]
    pub fn left(&self) -> Option<String> {
        self.unfinished.as_ref().map(|_| folder(self.output.state()))
    }

    /// Which of so many decoder layers are written.
    pub(crate) fn layers(&self, total: usize) -> Range<usize> {
        self.part.map_or(0..total, |part| part.range(total))
    }

    /// Begins the work on a model, or resumes it.
    pub(crate) fn begin(&mut self, model: &dyn Model, identity: &RunIdentity) -> Result<(), Error> {
        let same = self.origin.is_of(&model.fingerprint()?)?;
        if !matches!(same, SameModel::Yes | SameModel::StoredOtherwise) {
            return Err(Error::Request(format!(
                "the place was claimed for a copy of {}, and the model to be written is {}, another \
                 one",
                self.origin.dir().display(),
                model.name()
            )));
        }
        self.session = Session::begin(self.output.state(), self.unfinished.take(), identity)?;
        self.output.set_keep(false);
        Ok(())
    }

    /// Whether files of parts may have been moved here, by this run or the one that it continues.
    fn is_joining(&self) -> bool {
        let left = self.unfinished.as_ref().is_some_and(Journal::is_joining);
        left || self.session.is_joining()
    }

    /// Ends a step of the run, of which the report says how long it took.
    pub fn end_step(&mut self, name: &str) {
        self.clock.end_step(name);
    }

    /// The folder that becomes the output.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.output.path()
    }

    /// Whether that folder becomes a model by itself, rather than one file of it, or a part.
    #[must_use]
    pub fn makes_folder(&self) -> bool {
        self.output.is_whole_folder()
    }

    /// Does the work and publishes what it made. If it fails, what was finished is kept.
    ///
    /// # Errors
    /// What `work` returns, as [`Error::Kept`] if anything was finished; if publishing fails.
    pub fn complete<R>(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let done = work(&mut self);
        match done {
            Ok(result) => {
                // Syncing may still find the disk full.
                let folder = folder(self.output.state());
                self.output.set_keep(true);
                let moved = self.is_joining();
                self.output.publish().map_err(|e| kept(e.into(), folder, moved))?;
                Ok(result)
            }
            Err(error)
                if (self.session.has_progress() || self.unfinished.is_some())
                    && !error.is_final() =>
            {
                self.output.set_keep(true);
                Err(kept(error, folder(self.output.state()), self.is_joining()))
            }
            Err(error) => Err(error),
        }
    }
}

/// An error, and what to do about the work that is done.
fn kept(error: Error, folder: String, moved: bool) -> Error {
    match moved {
        true => Error::KeptMoved { error: Box::new(error), folder },
        false => error.kept(folder),
    }
}
