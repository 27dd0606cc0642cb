//! Observing all parts on this machine: one after another, or one per device.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use moeprune_capture::{merge_parts, read_part_head, write_observation};
use moeprune_core::{Observation, PartOf, plural};
use moeprune_model::check_runnable;

use super::{
    ObservationPlace,
    shared_progress::{PartProgress, Said, show},
    unfinished::Unfinished,
};
use crate::{
    Calibration, Error, Execution, Job, Model, Pipeline, Resume,
    session::{Record, RunIdentity},
};

impl Job<'_> {
    /// As [`observe_to`](Self::observe_to), in so many parts, each on one of `devices` as soon as that is free: hidden
    /// states take that fraction of memory and disk, and the weights are read once per part. A part that is finished
    /// is kept beside the file, and so are the layers of one that is not, so that a run that was killed can be resumed.
    ///
    /// # Errors
    /// As [`observe_to`](Self::observe_to); if there are no devices or no parts.
    pub fn observe_in_parts(
        &mut self,
        calibration: &Calibration,
        parts: usize,
        devices: &[Execution],
        to: ObservationPlace<'_>,
    ) -> Result<Observation, Error> {
        check_runnable(self.model.spec())?;
        let blocks = calibration.blocks.blocks().len().max(1);
        if parts > blocks {
            let only = plural(blocks, "block");
            self.progress.note(&format!("note: {only} make as many parts, not {parts}"));
        }
        let parts: Vec<PartOf> = PartOf::all(parts.min(blocks))?.collect();
        let Some(first) = devices.first() else {
            return Err(Error::Request("no device was named to observe parts on".to_owned()));
        };
        let unfinished = Unfinished::open(to)?;
        let identity = RunIdentity::new("observe", self.model)?
            .with_calibration(calibration)
            .with_number_of_parts(parts.len())
            .with_execution(first);
        let Job { model, pipeline, .. } = *self;
        let work = PartWork { model, pipeline, calibration, devices };
        let progress = &mut *self.progress;
        unfinished.finish(
            &identity,
            |session| {
                if !session.has_progress() {
                    session.record(Record::Parts { of: parts.len() })?;
                }
                let Some(state) = session.state() else {
                    return Err(Error::Resume("parts need a place".to_owned()));
                };
                let paths: Vec<(PartOf, PathBuf)> =
                    parts.into_iter().map(|part| (part, part_file(state, part))).collect();
                work.run(&paths, progress)?;
                Ok(merge_parts(&paths.into_iter().map(|(_, path)| path).collect::<Vec<_>>())?)
            },
            |observation, path| Ok(write_observation(observation, path)?),
        )
    }
}

fn part_file(state: &Path, part: PartOf) -> PathBuf {
    state.join(format!("part-{:04}-of-{:04}.safetensors", part.index(), part.of()))
}

/// What parts are observed of, and where.
struct PartWork<'a> {
    model: &'a dyn Model,
    pipeline: &'a Pipeline,
    calibration: &'a Calibration,
    devices: &'a [Execution],
}

type Queue<'a> = Mutex<VecDeque<&'a (PartOf, PathBuf)>>;

impl PartWork<'_> {
    /// Observes the parts that are not there yet.
    fn run(
        &self,
        paths: &[(PartOf, PathBuf)],
        progress: &mut dyn crate::Progress,
    ) -> Result<(), Error> {
        let blocks = &self.calibration.blocks;
        let tokens = |part: PartOf| {
            let range = part.range(blocks.blocks().len());
            blocks.blocks()[range].iter().map(|block| block.len() as u64).sum::<u64>()
        };
        let (mut done, mut left) = (Vec::new(), VecDeque::new());
        for part in paths {
            if !part.1.is_file() {
                left.push_back(part);
            } else if read_part_head(&part.1).is_ok() {
                done.push(part);
            } else {
                progress.note(&format!("part {} is damaged and is observed again", part.0));
                fs::remove_file(&part.1).map_err(|e| Error::io(&part.1, "remove", e))?;
                left.push_back(part);
            }
        }
        if !done.is_empty() {
            let (done, all) = (done.len(), paths.len());
            progress.note(&format!("observing: {done} of {all} parts done already, resuming"));
        }
        progress.begin("observing in parts", blocks.tokens(), "tokens");
        let before: u64 = done.iter().map(|(part, _)| tokens(*part)).sum();
        let stop = AtomicBool::new(false);
        let queue: Queue<'_> = Mutex::new(left);
        let (said, heard) = channel();
        let result = thread::scope(|scope| {
            let workers = self.devices.iter().enumerate().map(|(worker, execution)| {
                let (queue, stop, said) = (&queue, &stop, said.clone());
                scope.spawn(move || self.work_through(queue, (worker, execution), said, stop))
            });
            let workers: Vec<_> = workers.collect();
            drop(said);
            show(&heard, &stop, progress, before);
            let mut results = workers.into_iter().map(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // What failed is worth more than that the others stopped for it.
            results.by_ref().reduce(|first, other| match (&first, &other) {
                (Err(error), Err(_)) if error.is_stop() => other,
                (Err(_), _) => first,
                _ => other,
            })
        });
        result.unwrap_or(Ok(()))?;
        progress.end();
        Ok(())
    }

    /// What one device does: part after part, until none is left or one fails anywhere.
    fn work_through(
        &self,
        queue: &Queue<'_>,
        (worker, execution): (usize, &Execution),
        said: Sender<Said>,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((part, path)) = next else { return Ok(()) };
            let Self { model, pipeline, calibration, .. } = *self;
            let name = part.to_string();
            let mut progress = PartProgress { worker, name, said: said.clone(), stop };
            let mut job = Job { model, pipeline, execution, progress: &mut progress };
            let place = ObservationPlace { path, resume: Resume::Yes };
            if let Err(error) = job.observe_part_to(calibration, *part, place) {
                stop.store(true, Ordering::Relaxed);
                // The folder of all parts is named, not the part's.
                return Err(match error {
                    Error::Kept { error, .. } => *error,
                    error => error,
                });
            }
            // The display may be gone after a panic.
            let _ = said.send(Said::Part { worker });
        }
    }
}
