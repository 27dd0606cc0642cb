//! Running a model over calibration text once, and summing what it does.

mod layers;
mod part;
mod parts;
mod shared_progress;
mod unfinished;

use std::path::Path;

use moeprune_capture::write_observation;
use moeprune_core::Observation;
use moeprune_model::check_runnable;

use self::{
    layers::{Whole, observe_layers},
    unfinished::Unfinished,
};
use crate::{
    Calibration, Error, Job, Resume,
    session::{RunIdentity, Session},
};

/// Where an observation is written, and what is done about an interrupted run to the same place.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ObservationPlace<'a> {
    /// The file; it must not exist.
    pub path: &'a Path,
    /// Whether an interrupted run is resumed.
    pub resume: Resume,
}

impl Job<'_> {
    /// Runs the model over calibration blocks once and sums what it does. No stage takes part.
    ///
    /// # Errors
    /// If the model cannot be run, or its progress asks to stop.
    pub fn observe(&mut self, calibration: &Calibration) -> Result<Observation, Error> {
        check_runnable(self.model.spec())?;
        let execution = &self.for_blocks(calibration, false)?;
        observe_in(&mut self.on(execution), &mut Session::in_memory(), calibration)
    }

    /// As [`observe`](Self::observe), and writes the observation to a file. Every finished layer is
    /// kept in a hidden sibling of it, so that a run that was killed can be resumed.
    ///
    /// # Errors
    /// As [`observe`](Self::observe); if the file exists or cannot be written; if an interrupted run
    /// left finished layers and the place says not to resume it, or they are of another model or text.
    pub fn observe_to(
        &mut self,
        calibration: &Calibration,
        to: ObservationPlace<'_>,
    ) -> Result<Observation, Error> {
        check_runnable(self.model.spec())?;
        let unfinished = Unfinished::open(to)?;
        let execution = &self.for_blocks(calibration, false)?;
        let identity = RunIdentity::new("observe", self.model)?
            .with_calibration(calibration)
            .with_execution(execution);
        let mut job = self.on(execution);
        unfinished.finish(
            &identity,
            |session| observe_in(&mut job, session, calibration),
            |observation, path| Ok(write_observation(observation, path)?),
        )
    }
}

/// [`Job::observe`] within a run: layers that were observed before are not run again.
pub(crate) fn observe_in(
    job: &mut Job<'_>,
    session: &mut Session,
    calibration: &Calibration,
) -> Result<Observation, Error> {
    let whole =
        Whole { model_fingerprint: job.model.fingerprint()?, corpus: calibration.tag.clone() };
    let layers = observe_layers(job, session, &calibration.blocks, &whole)?;
    Ok(whole.of(layers))
}
