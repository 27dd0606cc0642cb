//! Calibration text cut into blocks for one model.

use std::path::Path;

use moeprune_capture::{
    CalibrationFile, CalibrationFormat, ObserverOptions, SamplingOptions, TokenBlocks,
    observe_and_advance, open_calibration, passes, token_blocks, write_observation,
};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, Observation};
use moeprune_files::PartialOutput;
use moeprune_model::check_runnable;
use tokenizers::Tokenizer;

use crate::{
    Error, Execution, Progress, Resume,
    finite::Finite,
    load_tokenizer,
    session::{Pass, Record, RunIdentity, Session, folder, unfinished},
    walk::{Resumed, Route, Walker},
};

/// What says which part of a text is drawn.
pub trait Sampling {
    /// The options for a model that takes at most `max_positions` tokens.
    #[must_use]
    fn options(&self, max_positions: usize) -> SamplingOptions;
}

impl Sampling for SamplingOptions {
    fn options(&self, max_positions: usize) -> SamplingOptions {
        Self { sequence_len: self.sequence_len.min(max_positions), ..*self }
    }
}

/// Blocks of tokens, and where they came from.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Calibration {
    /// The blocks.
    pub blocks: TokenBlocks,
    /// The file they were drawn from, and how.
    pub tag: CorpusTag,
}

impl Calibration {
    /// Draws the blocks that are asked for from a text, JSON-lines or token file.
    ///
    /// # Errors
    /// If the model cannot be run, the file cannot be read or is too short, or the tokenizer is missing or does not fit
    /// the model.
    pub fn read(
        path: &Path,
        checkpoint: &Checkpoint,
        sampling: &impl Sampling,
    ) -> Result<Self, Error> {
        let spec = checkpoint.spec();
        check_runnable(spec)?;
        let file = open_calibration(path)?;
        let tokenizer = tokenizer_for(&file, checkpoint)?;
        let options = sampling.options(spec.max_positions);
        let blocks = token_blocks(&file, tokenizer.as_ref(), spec.vocab, &options)?;
        let tag = file.tag(&blocks)?;
        Ok(Self { blocks, tag })
    }
}

/// The model's tokenizer, unless the file holds token ids.
///
/// # Errors
/// As [`load_tokenizer`].
pub fn tokenizer_for(
    file: &CalibrationFile,
    checkpoint: &Checkpoint,
) -> Result<Option<Tokenizer>, Error> {
    match file.format() {
        CalibrationFormat::TokenLines => Ok(None),
        _ => load_tokenizer(checkpoint).map(Some),
    }
}

/// Runs the model over calibration blocks once and sums what it does.
///
/// # Errors
/// If the model cannot be run, or `progress` asks to stop.
pub fn observe(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Observation, Error> {
    check_runnable(checkpoint.spec())?;
    let execution = execution.for_blocks(checkpoint, &calibration.tag, false, progress)?;
    observe_in(&mut Session::in_memory(), checkpoint, calibration, &execution, progress)
}

/// Where an observation is written, and what is done about an interrupted run to the same place.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ObservationPlace<'a> {
    /// The file; it must not exist.
    pub path: &'a Path,
    /// Whether an interrupted run is resumed.
    pub resume: Resume,
}

/// As [`observe`], and writes the observation to a file. Every finished layer is kept in a hidden
/// sibling of it, so that a run that was killed can be continued.
///
/// # Errors
/// As [`observe`]; if the file exists or cannot be written; if an interrupted run left finished layers
/// and `resume` says not to go on with them, or they are of another model or text.
pub fn observe_to(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    to: ObservationPlace<'_>,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Observation, Error> {
    check_runnable(checkpoint.spec())?;
    let ObservationPlace { path, resume } = to;
    let mut place = PartialOutput::open(path)?;
    let mut left = None;
    if place.is_leftover() {
        place.set_keep(true);
        left = unfinished(place.state(), resume)?;
        if left.is_none() {
            place.clear()?;
        }
    }
    let execution = &execution.for_blocks(checkpoint, &calibration.tag, false, progress)?;
    let identity = RunIdentity::new("observe", checkpoint)?
        .with_calibration(&calibration.tag)
        .with_execution(execution);
    let mut session = Session::begin(place.state(), left, &identity)?;
    place.set_keep(false);
    let folder = folder(place.state());
    let observed = observe_in(&mut session, checkpoint, calibration, execution, progress).and_then(
        |observation| {
            write_observation(&observation, place.content())?;
            Ok(observation)
        },
    );
    match observed {
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

/// [`observe`] within a run: layers that were observed before are not run again.
pub(crate) fn observe_in(
    session: &mut Session,
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Observation, Error> {
    let (spec, source) = (checkpoint.spec(), &Finite(checkpoint));
    let Calibration { blocks, tag } = calibration;
    let layers = spec.layers.len();
    let done = session.observed()?;
    let mut seen = Vec::with_capacity(layers);
    for layer in 0..done {
        seen.push(session.load_observed(layer)?);
    }
    let fingerprint = checkpoint.fingerprint()?;
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
    Walker { session, progress }.walk(&route, resumed, |mut at| {
        let (layer, hidden, compute) = (at.layer, at.take_hidden(), execution.compute());
        let options = ObserverOptions::default();
        let (sums, outputs) =
            observe_and_advance(source, spec, compute, layer, hidden, options, at.watch)?;
        *at.hidden = Some(outputs);
        at.session.save_observed(layer, &observation(vec![sums.clone()]))?;
        seen.push(sums);
        Ok(Some(Record::Observed { layer }))
    })?;
    Ok(observation(seen))
}
