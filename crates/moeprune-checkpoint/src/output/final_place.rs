//! What appears where when a checkpoint is complete.

use std::path::{Path, PathBuf};

use crate::{Checkpoint, Error, reports::reports_beside};

/// What appears under the name of an output.
#[derive(Debug)]
pub(super) enum FinalPlace {
    /// A folder with all files.
    Folder,
    /// A folder with some of the weights.
    Part {
        /// The file that says which.
        record: String,
    },
    /// One file.
    File {
        /// Its name while it is written.
        name: String,
        /// Names of reports while they are written, and their places beside it.
        reports: [(&'static str, PathBuf); 2],
    },
}

impl FinalPlace {
    /// What appears at `out` of a model made of `source`.
    pub(super) fn of(out: &Path, source: &Checkpoint) -> Result<Self, Error> {
        let extension = source.container().extension();
        let has_extension = out.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        let bad = |reason: String| {
            Err(moeprune_files::Error::Output { path: out.to_owned(), reason }.into())
        };
        let file = source.shard_files().next().filter(|_| source.is_one_file());
        let Some(file) = file else {
            if has_extension {
                return bad(format!(
                    "ends in .{extension}, but the result is a folder, as the model is; leave the \
                     ending out"
                ));
            }
            return Ok(Self::Folder);
        };
        if !has_extension {
            return bad(format!("must end in .{extension}, as the model is one file"));
        }
        Ok(Self::File { name: file.to_owned(), reports: reports_beside(out) })
    }

    /// Refuses to replace what lies where the reports are to be, unless an earlier run has put them there.
    pub(super) fn check_free(&self, is_leftover: bool) -> Result<(), Error> {
        let Self::File { reports, .. } = self else { return Ok(()) };
        let taken = reports.iter().find(|(_, place)| place.symlink_metadata().is_ok());
        match taken.filter(|_| !is_leftover) {
            None => Ok(()),
            Some((_, place)) => {
                let reason = "exists already; remove it or choose another name for the model";
                let (path, reason) = (place.clone(), reason.to_owned());
                Err(moeprune_files::Error::Output { path, reason }.into())
            }
        }
    }
}
