//! What a run keeps on disk to be resumed after it was killed.
//!
//! Everything is in the `state` folder of the hidden sibling that the run writes to:
//!
//! * `journal`: one JSON record per line. The first says what was begun ([`RunIdentity`]); each
//!   other that something is done and durable ([`Record`]).
//! * `hidden-PASS-LAYER`: the hidden states after the last finished layer of a pass.
//! * `observed-LAYER.safetensors`: the observation of one layer.
//! * `repaired-LAYER`, `refitted-LAYER`: the repaired weights of one layer, and while it is repaired what that works with.
//!
//! A record is appended when what it speaks of has been synced, the folder's entries included. A
//! process may therefore die between any two instructions: what the journal says is true.

mod hidden;
mod identity;
mod journal;
mod record;

pub(crate) use hidden::HiddenShape;
pub use identity::RunIdentity;
pub(crate) use journal::Journal;
pub use record::LayerZeros;
pub(crate) use record::{LayerRepaired, Pass, Record};

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use moeprune_core::{LayerPlan, LinearId, RoutedMass};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What to do about the work of a run that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "to resume or not")]
pub enum Resume {
    /// Start over. If an interrupted run left finished layers, that is an error: they may be hours
    /// of work.
    #[default]
    No,
    /// Resume it, if it was begun with the same model, calibration text and recipe; start over
    /// if there is nothing to resume.
    Yes,
}

/// The journal and the state files of one run; or only what is done, for a run that cannot be
/// continued.
#[derive(Debug, Default)]
pub(crate) struct Session {
    place: Option<Place>,
    /// Of a session without a place.
    records: Vec<Record>,
}

#[derive(Debug)]
struct Place {
    state: PathBuf,
    journal: Journal,
}

impl Session {
    /// Keeps nothing.
    pub(crate) fn in_memory() -> Self {
        Self::default()
    }

    /// Begins a run in `state`, or resumes the one whose journal is given.
    pub(crate) fn begin(
        state: &Path,
        unfinished: Option<Journal>,
        identity: &RunIdentity,
    ) -> Result<Self, Error> {
        let journal = match unfinished {
            Some(journal) => {
                let changed = journal.identity().changes(identity);
                if !changed.is_empty() {
                    let instead = match journal.is_joining() {
                        true => "join the same parts again: it holds weights moved out of them",
                        false => {
                            "run it with what it was begun with, or delete that folder to start over"
                        }
                    };
                    let (folder, changed) = (folder(state), changed.join("; "));
                    return Err(Error::Resume(format!("{folder}: {changed}; {instead}")));
                }
                journal
            }
            None => {
                let journal = Journal::create(&state.join(Journal::FILE), identity)?;
                moeprune_files::sync(state)?;
                journal
            }
        };
        let place = Some(Place { state: state.to_owned(), journal });
        Ok(Self { place, records: Vec::new() })
    }

    /// What was done before, in order; nothing in a new run.
    pub(crate) fn records(&self) -> &[Record] {
        self.place.as_ref().map_or(&self.records, |place| place.journal.records())
    }

    /// Whether anything is done that is worth resuming.
    pub(crate) fn has_progress(&self) -> bool {
        !self.records().is_empty()
    }

    /// Checks that no other process has begun again in the same place: where locks do not reach other machines, one may
    /// have.
    ///
    /// # Errors
    /// If the journal on disk is another one.
    pub(crate) fn check_undisturbed(&self) -> Result<(), Error> {
        match &self.place {
            Some(place) if !place.journal.is_on_disk() => Err(Error::Resume(format!(
                "another process has worked in {}, which no lock kept out; see that one process at a time writes there, \
                 and run again",
                folder(&place.state)
            ))),
            _ => Ok(()),
        }
    }

    /// The folder of its state; `None` of one that keeps nothing.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.state.as_path())
    }

    /// Notes that something is done. What it speaks of must be durable already.
    pub(crate) fn record(&mut self, record: Record) -> Result<(), Error> {
        match &mut self.place {
            None => {
                self.records.push(record);
                Ok(())
            }
            Some(Place { journal, state }) => {
                moeprune_files::sync(state)?;
                journal.append(record)
            }
        }
    }

    /// Notes that a layer of a pass is done, and keeps the hidden states that the next one reads.
    pub(crate) fn layer_done(
        &mut self,
        pass: Pass,
        layer: usize,
        hidden: Option<&[Tensor]>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), Error> {
        let mut records = records.into_iter();
        let Some(Place { state, .. }) = &self.place else {
            return records.try_for_each(|record| self.record(record));
        };
        let state = state.clone();
        if let Some(hidden) = hidden {
            hidden::save(&state, pass, layer, hidden)?;
        }
        records.try_for_each(|record| self.record(record))?;
        // Those of earlier layers are of no use any more.
        hidden::remove_all_but(&state, hidden.map(|_| (pass, layer)))
    }

    /// The hidden states after `layer` of a pass.
    pub(crate) fn hidden_after(
        &self,
        pass: Pass,
        layer: usize,
        shape: &HiddenShape<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        match &self.place {
            None => Err(Error::Resume("a run without a place has no state".to_owned())),
            Some(place) => hidden::load(&place.state, pass, layer, shape),
        }
    }

    /// Where what was observed of a layer is kept; nowhere if nothing is.
    pub(crate) fn observed_place(&self, layer: usize) -> Option<PathBuf> {
        Some(observed(&self.place.as_ref()?.state, layer))
    }

    /// What was observed of a layer, which `read` reads.
    pub(crate) fn load_observed<T>(
        &self,
        layer: usize,
        read: impl FnOnce(&Path) -> Result<Vec<T>, Error>,
    ) -> Result<T, Error> {
        let Some(path) = self.observed_place(layer) else {
            return Err(Error::Resume("a run without a place has no state".to_owned()));
        };
        let unreadable = |e| {
            let folder = folder(path.parent().unwrap_or(&path));
            Error::Resume(format!("{e}; delete the unfinished folder {folder} to start over"))
        };
        let mut layers = read(&path).map_err(unreadable)?;
        match (layers.pop(), layers.is_empty()) {
            (Some(layer), true) => Ok(layer),
            _ => Err(Error::Resume(format!("{} is not of one layer", path.display()))),
        }
    }
}

/// What of a session is done, by what it is.
impl Session {
    /// Layers of the unpruned model that were observed.
    pub(crate) fn observed(&self) -> Result<usize, Error> {
        let layers = self.records().iter().filter_map(|record| match record {
            Record::Observed { layer } => Some((*layer, ())),
            _ => None,
        });
        Ok(in_order(0, layers)?.len())
    }

    /// Layers whose survivors were chosen.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = &LayerPlan> {
        self.records().iter().filter_map(|record| match record {
            Record::Chosen(plan) => Some(plan),
            _ => None,
        })
    }

    /// What the repair of each layer did, and which experts have new weights; `masked`: the one after
    /// weights were zeroed.
    pub(crate) fn repaired(&self, masked: bool) -> Result<Vec<Option<LayerRepaired>>, Error> {
        let layers = self.records().iter().filter_map(|record| match record {
            Record::Repaired { layer, masked: of, done } if *of == masked => {
                Some((*layer, done.as_deref().cloned()))
            }
            _ => None,
        });
        in_order(0, layers)
    }

    /// Percentage of outliers of each layer measured.
    pub(crate) fn measured(&self) -> Result<Vec<f64>, Error> {
        let layers = self.records().iter().filter_map(|record| match record {
            Record::Measured { layer, outlier_percent } => Some((*layer, *outlier_percent)),
            _ => None,
        });
        in_order(0, layers)
    }

    /// Whether what belongs to no layer was written.
    pub(crate) fn outside_written(&self) -> bool {
        self.records().contains(&Record::OutsideWritten)
    }

    /// Whether parts are being put together.
    pub(crate) fn is_joining(&self) -> bool {
        self.records().contains(&Record::Joining)
    }

    /// Zeros and idle experts of each layer written, of a run that writes layers from `first` on.
    pub(crate) fn written(&self, first: usize) -> Result<Vec<WrittenLayer>, Error> {
        in_order(first, self.records().iter().filter_map(Record::written))
    }
}

/// What there is to say about a layer that is written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WrittenLayer {
    /// Exact zeros in what was written.
    pub zeros: LayerZeros,
    /// Experts of the pruned model that no calibration token reached.
    pub idle: Vec<usize>,
    /// Linears that too few tokens reached for a reconstruction.
    pub scored: u64,
    /// Weights that have no code that is zero and stay, if there are such.
    pub without_zero: Option<WithoutZero>,
    /// What a token's experts weigh together, before experts went and after; `None` where that stays,
    /// and if the layer was not run.
    pub mass: Option<RoutedMass>,
}

/// Weights that were to be chosen from and have no code that is zero, as in groups of GPTQ version 1 whose
/// zero point is stored as 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct WithoutZero {
    /// How many.
    pub weights: u64,
    /// Of how many Linears of the layer.
    pub linears: u64,
    /// The first of these.
    pub first: LinearId,
}

impl Record {
    /// The layer that was written, if one was, and what there is to say about it.
    pub(crate) fn written(&self) -> Option<(usize, WrittenLayer)> {
        let Self::Written { layer, zeros, idle, scored, without_zero, mass } = self else {
            return None;
        };
        let (zeros, scored, mass) = (*zeros, *scored, *mass);
        let (idle, without_zero) = (idle.clone(), *without_zero);
        Some((*layer, WrittenLayer { zeros, idle, scored, without_zero, mass }))
    }
}

/// Layers come one after the other, from the given one.
fn in_order<T>(first: usize, layers: impl Iterator<Item = (usize, T)>) -> Result<Vec<T>, Error> {
    let check = |(place, (layer, value)): (usize, (usize, T))| {
        if layer == place {
            return Ok(value);
        }
        Err(Error::Resume(format!(
            "the journal names layer {layer} where layer {place} comes next; delete the folder it \
             is in to start over"
        )))
    };
    (first..).zip(layers).map(check).collect()
}

/// The journal of an interrupted run that can be resumed; `None` if it finished nothing.
pub(crate) fn unfinished(state: &Path, resume: Resume) -> Result<Option<Journal>, Error> {
    let journal = Journal::open(&state.join(Journal::FILE));
    match (journal, resume) {
        (Ok(Some(journal)), _) if journal.records().is_empty() => Ok(None),
        (Ok(None), _) => Ok(None),
        (Ok(Some(journal)), Resume::Yes) => Ok(Some(journal)),
        (Ok(Some(journal)), Resume::No) if journal.is_joining() => Err(Error::Resume(format!(
            "{} holds weights that `moeprune join` moved out of parts; run that join again, or choose another place",
            folder(state)
        ))),
        (Ok(Some(_)) | Err(_), Resume::No) => Err(Error::Unfinished { folder: folder(state) }),
        (Err(error), Resume::Yes) => Err(error),
    }
}

fn observed(state: &Path, layer: usize) -> PathBuf {
    state.join(format!("observed-{layer:04}.safetensors"))
}

/// The hidden sibling that a `state` folder is in.
pub(crate) fn folder(state: &Path) -> String {
    state.parent().unwrap_or(state).display().to_string()
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|e| Error::io(path, "remove", e))
}
