//! A file or directory that appears under its name only when it is complete.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use super::{
    claim::{Claim, remove_finished, remove_work},
    inside,
    names::{CONTENT, LOCK, MARKER, STATE, sibling_name},
    remove::remove,
    room,
};
use crate::{Error, durable, whole::rename_to_new};

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
/// no process holds its lock. Where files cannot be locked (Lustre, some NFS and FUSE), a lock file beside
/// the marker says which process it is.
///
/// A folder that exists and is empty is filled ([`open_folder`](Self::open_folder)): it may be a mount
/// point, from which nothing can be renamed. The same then lies in `NAME/.moeprune-unfinished`, and
/// publishing moves what is in `output` out of it, one entry after the other. If that is
/// interrupted, the next [`open_folder`](Self::open_folder) moves back what was moved.
#[derive(Debug)]
pub struct PartialOutput {
    out: PathBuf,
    /// The hidden folder, beside the place or in it.
    work: PathBuf,
    state: PathBuf,
    /// Held while this lives.
    claim: Option<Claim>,
    /// Whether the hidden folder is in the place.
    inside: bool,
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

    /// As [`open`](Self::open), of a folder, which may exist if it is empty, and which shares nothing with
    /// the folder of a model, if there is one.
    ///
    /// # Errors
    /// As [`open_apart_from`](Self::open_apart_from); of a folder that exists, if there is anything in it but
    /// what this type has put there, or `lost+found` where it is a mount point.
    pub fn open_folder(out: &Path, model: Option<&Path>) -> Result<Self, Error> {
        let place = match model {
            Some(model) => place_apart_from(out, model)?,
            None => real_place(out)?,
        };
        if !place.is_dir() {
            return Self::open_at(out, place);
        }
        let (work, claim) = inside::claim(out, &place)?;
        let mut made = Self::claimed(place, work, claim);
        made.inside = true;
        made.take_over()?;
        Ok(made)
    }

    /// As [`open`](Self::open), of a place that shares nothing with a model folder.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if `out` is inside of the folder or the folder inside of it.
    pub fn open_apart_from(out: &Path, model: &Path) -> Result<Self, Error> {
        Self::open_at(out, place_apart_from(out, model)?)
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
        let claim = Claim::make(&sibling)?;
        let mut made = Self::claimed(place, sibling, claim);
        if made.out.symlink_metadata().is_ok() {
            // Published by another process between the look and the claim.
            made.keep = made.content().symlink_metadata().is_ok();
            return Err(exists(out));
        }
        made.take_over()?;
        Ok(made)
    }

    fn claimed(out: PathBuf, work: PathBuf, claim: Claim) -> Self {
        Self {
            out,
            state: work.join(STATE),
            work,
            claim: Some(claim),
            inside: false,
            leftover: false,
            keep: true, // perhaps unfinished work, as long as it is not known what is there
            published: false,
        }
    }

    /// Looks for what an earlier process has left.
    fn take_over(&mut self) -> Result<(), Error> {
        self.leftover = self.can_be_resumed()?;
        if !self.leftover {
            self.clear()?;
        }
        self.keep = false;
        Ok(())
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
        for entry in fs::read_dir(&self.work).map_err(Error::io("list", &self.work))? {
            let entry = entry.map_err(Error::io("list", &self.work))?;
            if entry.file_name() != MARKER && entry.file_name() != LOCK {
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
        self.work.join(CONTENT)
    }

    /// The final place, absolute, links of what exists resolved.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.out
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
    pub fn publish(self) -> Result<(), Error> {
        self.publish_with(None)
    }

    /// As [`publish`](Self::publish) of a folder, of which the entry `last` appears last where it must be moved
    /// entry by entry: without it, what is there is nothing that any program reads.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_with(mut self, last: Option<&str>) -> Result<(), Error> {
        let content = self.content();
        durable::sync_tree(&content)?;
        if self.inside {
            inside::publish(&self.work, &self.out, last)?;
            self.published = true;
            return Ok(());
        }
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
        room::check(&self.work, bytes, &self.out)
    }

    /// Whether there is something of an earlier process, in the form that this type gives it.
    fn can_be_resumed(&self) -> Result<bool, Error> {
        let entries = fs::read_dir(&self.work)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(Error::io("list", &self.work))?;
        // Beside the marker: a lock, and what NFS keeps of files that were deleted while they were open.
        let is_ours = |name: &OsStr| {
            let name = name.as_encoded_bytes();
            name.starts_with(b".moeprune-") || name.starts_with(b".nfs")
        };
        let names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        let mut made = names.iter().filter(|name| !is_ours(name)).peekable();
        let is_there = made.peek().is_some();
        Ok(is_there && made.all(|name| name == CONTENT || name == STATE) && self.state.is_dir())
    }
}

impl Drop for PartialOutput {
    fn drop(&mut self) {
        if self.published || !self.keep {
            // Nothing can be reported from here; what stays behind looks unfinished all the same.
            drop(remove_work(&self.work, self.claim.take()));
        }
    }
}

/// The [`real_place`] of an output that shares nothing with a model folder.
fn place_apart_from(out: &Path, model: &Path) -> Result<PathBuf, Error> {
    let bad = |reason: String| Err(Error::Output { path: out.to_owned(), reason });
    let place = real_place(out)?;
    if place.starts_with(model) {
        return bad(format!("is inside of the model {}; choose another place", model.display()));
    }
    if model.starts_with(&place) {
        return bad(format!("contains the model {}; choose another place", model.display()));
    }
    Ok(place)
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
    remove_finished(sibling);
    Err(exists(out))
}
