//! Names in the hidden folder that an output grows in, and its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The process that writes holds a lock on it.
pub(super) const MARKER: &str = ".moeprune-partial";

/// There where a process works that cannot lock the marker.
pub(super) const LOCK: &str = ".moeprune-lock";

/// What will be published.
pub(super) const CONTENT: &str = "output";

/// What is needed to resume.
pub(super) const STATE: &str = "state";

/// The hidden sibling in which `place`, a real path, is made.
pub(crate) fn sibling_of(place: &Path) -> Option<PathBuf> {
    Some(place.parent()?.join(sibling_name(place.file_name()?)))
}

pub(super) fn sibling_name(name: &OsStr) -> std::ffi::OsString {
    let mut sibling = OsStr::new(".").to_owned();
    sibling.push(name);
    sibling.push(".moeprune-partial");
    sibling
}
