//! Running a model over calibration text once, and summing what it does.

use std::path::Path;

use moeprune_capture::{ObserverOptions, StoredLayer, passes, write_observation};
use moeprune_core::Observation;
use moeprune_files::PartialOutput;
use moeprune_model::check_runnable;

use crate::{
    Calibration, Error, Job, Resume,
    finite::Finite,
    session::{Pass, Record, RunIdentity, Session, folder, unfinished},
    walk::{Resumed, Route, Walker},
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
        let mut place = PartialOutput::open(to.path)?;
        let mut left = None;
        if place.is_leftover() {
            place.set_keep(true);
            left = unfinished(place.state(), to.resume)?;
            if left.is_none() {
                place.clear()?;
            }
        }
        let execution = &self.for_blocks(calibration, false)?;
        let identity = RunIdentity::new("observe", self.model)?
            .with_calibration(calibration)
            .with_execution(execution);
        let mut session = Session::begin(place.state(), left, &identity)?;
        place.set_keep(false);
        let folder = folder(place.state());
        let observed = observe_in(&mut self.on(execution), &mut session, calibration);
        let written = observed.and_then(|observation| {
            write_observation(&observation, place.content())?;
            Ok(observation)
        });
        match written {
            Ok(observation) => {
                place.set_keep(true);
                place.publish().map_err(|e| Error::from(e).kept(folder))?;
                Ok(observation)
            }
            Err(error) if session.has_progress() && !error.is_final() => {
                place.set_keep(true);
                Err(error.kept(folder))
            }
            Err(error) => Err(error),
        }
    }
}

/// [`Job::observe`] within a run: layers that were observed before are not run again.
pub(crate) fn observe_in(
    job: &mut Job<'_>,
    session: &mut Session,
    calibration: &Calibration,
) -> Result<Observation, Error> {
    let Job { model, execution, .. } = *job;
    let (spec, source) = (model.spec(), &Finite(model));
    let Calibration { blocks, tag, .. } = calibration;
    let layers = spec.layers.len();
    let done = session.observed()?;
    let mut seen = Vec::with_capacity(layers);
    for layer in 0..done {
        seen.push(session.load_observed(layer)?);
    }
    let fingerprint = model.fingerprint()?;
    let observation = |layers| Observation {
        model_fingerprint: fingerprint.clone(),
        corpora: vec![tag.clone()],
        layers,
    };
    if done >= layers {
        return Ok(observation(seen));
    }
    let work: Vec<u64> = (0..layers).map(|layer| passes(spec, layer, blocks.tokens())).collect();
    let route = Route {
        source,
        spec,
        blocks: Some(blocks),
        micro_batch: execution.micro_batch(),
        execution,
        step: "observing",
        work: &work,
    };
    let resumed = Some(Resumed { pass: Pass::Observe, done });
    Walker { session, progress: &mut *job.progress }.walk(&route, resumed, |mut at| {
        let (layer, hidden, compute) = (at.layer, at.take_hidden(), execution.compute());
        let options = ObserverOptions::default();
        let stored = StoredLayer { source, spec, layer, compute };
        let (sums, outputs) = stored.observe_and_advance(hidden, options, at.watch)?;
        *at.hidden = Some(outputs);
        at.session.save_observed(layer, &observation(vec![sums.clone()]))?;
        seen.push(sums);
        Ok(Some(Record::Observed { layer }))
    })?;
    Ok(observation(seen))
}
