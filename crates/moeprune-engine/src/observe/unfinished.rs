//! The file that an observation goes to, until it is finished.

use std::{
    fs::{self, ReadDir},
    path::Path,
};

use moeprune_files::PartialOutput;

use super::ObservationPlace;
use crate::{
    Error,
    session::{Journal, RunIdentity, Session, folder, unfinished},
};

/// A file that grows in a hidden sibling, with what an interrupted run left there.
pub(super) struct Unfinished {
    place: PartialOutput,
    left: Option<Journal>,
}

impl Unfinished {
    /// # Errors
    /// If the file exists, another process is making it, or an interrupted run left something and is not to be
    /// resumed.
    pub(super) fn open(to: ObservationPlace<'_>) -> Result<Self, Error> {
        let mut place = PartialOutput::open(to.path)?;
        let mut left = None;
        if place.is_leftover() {
            place.set_keep(true);
            left = unfinished(place.state(), to.resume)?;
            if left.is_none() {
                place.clear()?;
            }
        }
        Ok(Self { place, left })
    }

    /// Does the work, writes what it makes, and publishes it. If that fails or is stopped, what is done is kept.
    ///
    /// # Errors
    /// Of the work; if what was left is of another run; if the file cannot be written.
    pub(super) fn finish<T>(
        self,
        identity: &RunIdentity,
        work: impl FnOnce(&mut Session) -> Result<T, Error>,
        write: impl FnOnce(&T, &Path) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let Self { mut place, left } = self;
        let mut session = Session::begin(place.state(), left, identity)?;
        place.set_keep(false);
        let folder = folder(place.state());
        let written = work(&mut session).and_then(|made| {
            write(&made, &place.content())?;
            Ok(made)
        });
        match written {
            Ok(made) => {
                place.set_keep(true);
                place.publish().map_err(|e| Error::from(e).kept(folder))?;
                Ok(made)
            }
            Err(error) if is_worth_keeping(&session, place.state()) && !error.is_final() => {
                place.set_keep(true);
                Err(error.kept(folder))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether there is more than the note of what was begun.
fn is_worth_keeping(session: &Session, state: &Path) -> bool {
    let more = |entries: ReadDir| entries.flatten().any(|entry| entry.file_name() != Journal::FILE);
    session.has_progress() && fs::read_dir(state).is_ok_and(more)
}
