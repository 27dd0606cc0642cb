//! A file or directory that appears under its name only when it is complete.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Component, Path, PathBuf},
};

use super::{durable, room};
use crate::{Error, whole::rename_to_new};

/// In the hidden sibling; the process that writes holds a lock on it.
const MARKER: &str = ".moeprune-partial";
const CONTENT: &str = "output";
const STATE: &str = "state";

const MARKER_TEXT: &str = "\
moeprune is writing into this directory, or was interrupted while it did.
Unless it is still running, this directory can be deleted; a run that was interrupted cannot be
resumed then.
";

/// Before the number of the process, in the last line of the marker.
const PROCESS: &str = "process ";

const MARKER_LIMIT: u64 = 4096;

/// An unfinished file or directory that will have the name `NAME`.
///
/// It grows in a hidden sibling of its final place:
///
/// | `.NAME.moeprune-partial/` | |
/// |---|---|
/// | `.moeprune-partial` | marks the directory as made here; locked as long as the process lives |
/// | `output` | what will be published: a file or a directory, made by the user of this type |
/// | `state/` | what is needed to resume after an interruption, and not published |
///
/// [`publish`](Self::publish) makes `output` durable and renames it, so what has that name
/// is complete. Dropped unpublished, the sibling is removed, or left to be resumed if
/// [`set_keep`](Self::set_keep) says so; a process that is killed leaves it in any case. The next
/// [`open`](Self::open) of the same place takes a leftover over, if it carries the marker and
/// no process holds its lock.
#[derive(Debug)]
pub struct PartialOutput {
    out: PathBuf,
    sibling: PathBuf,
    state: PathBuf,
    /// Locked while this lives.
    marker: Option<File>,
    leftover: bool,
    keep: bool,
    published: bool,
}

impl PartialOutput {
    /// Prepares to make `out`, whose missing parent directories are made.
    ///
    /// # Errors
    /// If `out` exists, another process is making it, or the place of the hidden sibling is taken
    /// by something else.
    pub fn open(out: &Path) -> Result<Self, Error> {
        Self::open_at(out, real_place(out)?)
    }

    /// As [`open`](Self::open), of a place that shares nothing with a model folder.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if `out` is inside of the folder or the folder inside of it.
    pub fn open_apart_from(out: &Path, model: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::Output { path: out.to_owned(), reason });
        let place = real_place(out)?;
        if place.starts_with(model) {
            return bad(format!(
                "is inside of the model {}; choose another place",
                model.display()
            ));
        }
        if model.starts_with(&place) {
            return bad(format!("contains the model {}; choose another place", model.display()));
        }
        Self::open_at(out, place)
    }

    /// As [`open`](Self::open), given the [`real_place`] of `out`.
    fn open_at(out: &Path, place: PathBuf) -> Result<Self, Error> {
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            let reason = "is not a usable path for a file or directory: it has no name; choose another place".to_owned();
            return Err(Error::Output { path: out.to_owned(), reason });
        };
        let sibling = parent.join(sibling_name(name));
        refuse_existing(out, &sibling)?;
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let marker = claim(&sibling)?;
        let mut made = Self {
            out: place,
            state: sibling.join(STATE),
            sibling,
            marker: Some(marker),
            leftover: false,
            keep: true, // perhaps unfinished work, as long as it is not known what is there
            published: false,
        };
        if made.out.symlink_metadata().is_ok() {
            // Published by another process between the look and the claim.
            made.keep = made.content().symlink_metadata().is_ok();
            return Err(exists(out));
        }
        made.leftover = made.can_be_resumed()?;
        if !made.leftover {
            made.clear()?;
        }
        made.keep = false;
        Ok(made)
    }

    /// Whether an earlier process has left something here.
    #[must_use]
    pub fn is_leftover(&self) -> bool {
        self.leftover
    }

    /// Deletes what is there, to start again.
    ///
    /// # Errors
    /// If something cannot be deleted.
    pub fn clear(&mut self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.sibling).map_err(Error::io("list", &self.sibling))? {
            let entry = entry.map_err(Error::io("list", &self.sibling))?;
            if entry.file_name() != MARKER {
                remove(&entry.path())?;
            }
        }
        fs::create_dir(&self.state).map_err(Error::io("create", &self.state))?;
        self.leftover = false;
        Ok(())
    }

    /// Where to make the file or directory; its parent exists. The path is not valid any more after
    /// [`publish`](Self::publish).
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.sibling.join(CONTENT)
    }

    /// A directory for what is needed to resume. It is deleted by [`publish`](Self::publish).
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Whether everything is left in place, to be resumed, if this is dropped unpublished.
    pub fn set_keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Makes the content durable, moves it to its final name, and deletes the rest.
    ///
    /// # Errors
    /// If nothing was made, that fails, or something has appeared under the name.
    pub fn publish(mut self) -> Result<(), Error> {
        let content = self.content();
        durable::sync_tree(&content)?;
        if let Err(e) = rename_to_new(&content, &self.out) {
            return Err(match e.kind() {
                ErrorKind::AlreadyExists => {
                    let reason = "has appeared while it was being written; nothing was replaced";
                    Error::Output { path: self.out.clone(), reason: reason.to_owned() }
                }
                _ => Error::io("rename to", &self.out)(e),
            });
        }
        self.published = true;
        match self.out.parent() {
            Some(parent) => durable::sync(parent),
            None => Ok(()),
        }
    }

    /// As [`publish`](Self::publish) of one file of a content that is a directory: it alone gets the final
    /// name. Files of `beside`, names in the directory and final places, are moved there before; one that is
    /// not there is passed over, one that is at its place already is replaced. Nothing else of the directory
    /// is kept.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_file(self, file: &str, beside: &[(&str, PathBuf)]) -> Result<(), Error> {
        let content = self.content();
        durable::sync_tree(&content)?;
        let aside = self.state.join(CONTENT);
        let rename =
            |from: &Path, to: &Path| fs::rename(from, to).map_err(Error::io("rename to", to));
        for (name, place) in beside {
            let made = content.join(name);
            if made.symlink_metadata().is_ok() {
                rename(&made, place)?;
            }
        }
        rename(&content, &aside)?;
        rename(&aside.join(file), &content)?;
        self.publish()
    }

    /// Checks that the disk has room for an output of so many bytes, those included that are
    /// there already. Passes where the system cannot tell.
    ///
    /// # Errors
    /// If there is less, with both numbers.
    pub fn check_room(&self, bytes: u64) -> Result<(), Error> {
        room::check(&self.sibling, bytes, &self.out)
    }

    /// Whether there is something of an earlier process, in the form that this type gives it.
    fn can_be_resumed(&self) -> Result<bool, Error> {
        let entries = fs::read_dir(&self.sibling)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(Error::io("list", &self.sibling))?;
        let known = [MARKER, CONTENT, STATE].map(OsStr::new);
        let all_known = entries.iter().all(|entry| known.contains(&&*entry.file_name()));
        Ok(all_known && entries.len() > 1 && self.state.is_dir())
    }
}

impl Drop for PartialOutput {
    fn drop(&mut self) {
        if self.published || !self.keep {
            // Nothing can be reported from here; what stays behind looks unfinished all the same.
            drop(remove_sibling(&self.sibling, self.marker.take()));
        }
    }
}

/// The hidden sibling in which `place`, a real path, is made.
pub(crate) fn sibling_of(place: &Path) -> Option<PathBuf> {
    Some(place.parent()?.join(sibling_name(place.file_name()?)))
}

fn sibling_name(name: &OsStr) -> std::ffi::OsString {
    let mut sibling = OsStr::new(".").to_owned();
    sibling.push(name);
    sibling.push(".moeprune-partial");
    sibling
}

/// The absolute path of something that may not exist, symlinks of what exists resolved.
fn real_place(out: &Path) -> Result<PathBuf, Error> {
    let absolute = std::path::absolute(out).map_err(Error::io("find", out))?;
    for existing in absolute.ancestors() {
        let real = match existing.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("find", existing)(e)),
        };
        let rest = absolute.strip_prefix(existing).unwrap_or_else(|_| Path::new(""));
        if rest.components().all(|c| matches!(c, Component::Normal(_))) {
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    let reason = "leads through directories that do not exist; write it without `..`".to_owned();
    Err(Error::Output { path: out.to_owned(), reason })
}

fn exists(out: &Path) -> Error {
    let reason = "exists already; remove it or choose another place".to_owned();
    Error::Output { path: out.to_owned(), reason }
}

/// Refuses an output that exists. If it was published by a process that was stopped before it
/// could clean up, this does.
fn refuse_existing(out: &Path, sibling: &Path) -> Result<(), Error> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let is_gone = |name| sibling.join(name).symlink_metadata().is_err();
    if !is_gone(MARKER)
        && is_gone(CONTENT)
        && let Ok(Some(marker)) = lock(sibling)
    {
        drop(remove_sibling(sibling, Some(marker)));
    }
    Err(exists(out))
}

/// Makes the hidden sibling, or takes over the one that is there, and locks its marker.
fn claim(sibling: &Path) -> Result<File, Error> {
    // Another process may be removing the directory; it takes a few system calls.
    for _ in 0..100 {
        match fs::create_dir(sibling) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", sibling)(e)),
        }
        if let Some(marker) = lock(sibling)? {
            return Ok(marker);
        }
    }
    let reason = "appears and disappears; another moeprune process may be at it".to_owned();
    Err(Error::Output { path: sibling.to_owned(), reason })
}

/// Locks the marker of a sibling and writes this process into it; `None` if the sibling was
/// removed meanwhile.
fn lock(sibling: &Path) -> Result<Option<File>, Error> {
    let path = sibling.join(MARKER);
    let Some(mut marker) = open_marker(sibling, &path)? else { return Ok(None) };
    match marker.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let reason = format!(
                "is being written by another moeprune process{}; wait for it",
                owner(&mut marker).map_or_else(String::new, |process| format!(" ({process})"))
            );
            return Err(Error::Output { path: sibling.to_owned(), reason });
        }
        Err(TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
    }
    if !is_at(&marker, &path) {
        return Ok(None);
    }
    let text = format!("{MARKER_TEXT}{PROCESS}{}\n", std::process::id());
    // Not emptied first: on a full disk there would be no way back.
    marker
        .rewind()
        .and_then(|()| marker.write_all(text.as_bytes()))
        .and_then(|()| marker.set_len(text.len() as u64))
        .map_err(Error::io("write", &path))?;
    Ok(Some(marker))
}

/// Opens the marker, or makes it in an empty directory; `None` if the directory changes
/// meanwhile.
fn open_marker(sibling: &Path, path: &Path) -> Result<Option<File>, Error> {
    let in_the_way = || {
        let reason = format!(
            "is in the way and has no {MARKER}, so it may belong to another program; remove it by hand if not"
        );
        Err(Error::Output { path: sibling.to_owned(), reason })
    };
    match sibling.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return in_the_way(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("inspect", sibling)(e)),
    }
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return in_the_way();
    }
    let mut options = File::options();
    options.read(true).write(true);
    match options.open(path) {
        Ok(marker) => return Ok(Some(marker)),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("open", path)(e)),
    }
    match fs::read_dir(sibling).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        // The marker may have been made since.
        Ok(false) if path.symlink_metadata().is_ok() => return Ok(None),
        Ok(false) => return in_the_way(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("list", sibling)(e)),
    }
    match options.create_new(true).open(path) {
        Ok(marker) => Ok(Some(marker)),
        Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(Error::io("create", path)(e)),
    }
}

/// The last line of a marker, if it can be read and says which process it is.
fn owner(marker: &mut File) -> Option<String> {
    let mut text = String::new();
    marker.take(MARKER_LIMIT).read_to_string(&mut text).ok()?;
    let line = text.lines().last()?;
    let number = line.strip_prefix(PROCESS)?;
    number.parse::<u32>().is_ok().then(|| line.to_owned())
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (Ok(file), Ok(found)) = (file.metadata(), path.symlink_metadata()) else {
            return false;
        };
        (file.dev(), file.ino()) == (found.dev(), found.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.symlink_metadata().is_ok()
    }
}

/// Deletes a sibling; its marker goes last, so that what is left by an interruption is known to
/// be a leftover.
fn remove_sibling(sibling: &Path, marker: Option<File>) -> Result<(), Error> {
    for name in [CONTENT, STATE] {
        let path = sibling.join(name);
        if path.symlink_metadata().is_ok() {
            remove(&path)?;
        }
    }
    if cfg!(windows) {
        drop(marker); // open files cannot be deleted there
        return remove(sibling);
    }
    let removed = remove(sibling);
    drop(marker);
    removed
}

fn remove(path: &Path) -> Result<(), Error> {
    let is_dir = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(ignore_missing).map_err(Error::io("remove", path))
}

fn ignore_missing(e: io::Error) -> io::Result<()> {
    if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) }
}
