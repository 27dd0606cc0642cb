//! From a model and calibration text to an observation in a file.

use std::path::Path;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::Observation;
use moeprune_engine::{Calibration, Execution, ObservationPlace, Progress, Resume};

use crate::Error;

/// As [`observe`](crate::observe), and writes the observation to `out`. Every finished layer is kept in
/// a hidden sibling of `out`, so that a run that was killed can be resumed.
///
/// # Errors
/// As [`observe`](crate::observe); if `out` exists or cannot be written; if an interrupted run left
/// finished layers and `resume` says not to continue them, or they are of another model or text.
pub fn observe_to(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    out: &Path,
    resume: Resume,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Observation, Error> {
    let place = ObservationPlace { path: out, resume };
    Ok(moeprune_engine::observe_to(checkpoint, calibration, place, execution, progress)?)
}
