//! Outputs that grow within the folder that they fill.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    claim::{Claim, remove_finished, remove_work, try_claim},
    names::{CONTENT, STATE, sibling_of},
};
use crate::{
    Error, durable,
    whole::{rename_to_new, write_and_rename},
};

/// The hidden folder in a folder that is being filled.
pub(super) const INSIDE: &str = ".moeprune-unfinished";

/// In it, while names are moved out of it: which they are, each ended by a zero byte.
const NAMES: &str = ".moeprune-publishing";

/// Claims the hidden folder in `place`, which exists. What an interrupted run had moved into `place`
/// is moved back.
pub(super) fn claim(out: &Path, place: &Path) -> Result<(PathBuf, Claim), Error> {
    let work = place.join(INSIDE);
    let refused = |reason: String| Error::Output { path: out.to_owned(), reason };
    let others = others(place)?;
    let beside = sibling_of(place).filter(|beside| beside.exists());
    if others.is_empty() {
        return match beside {
            None => Ok((work.clone(), Claim::make(&work)?)),
            Some(beside) => Err(refused(format!(
                "is an empty folder, and what an interrupted run left for this place is in {}; remove the \
                 empty folder to use that, or delete what was left",
                beside.display()
            ))),
        };
    }
    let is_there = work.symlink_metadata().is_ok();
    let not_empty = |also: &str| {
        // It comes last, so nothing is left to do.
        let is_model = others.iter().any(|name| name == "config.json");
        let what = if is_model { "a finished model" } else { "not empty" };
        refused(format!(
            "exists already and is {what}: it holds {}{also}; choose another place, or remove it if it is \
             not wanted",
            listed(&others)
        ))
    };
    if let Some(beside) = beside {
        // Left by a process that was stopped after it had published, if nothing is in it.
        remove_finished(&beside);
        return Err(not_empty(""));
    }
    if !is_there {
        return Err(not_empty(""));
    }
    let moved = moved(&work)?;
    let has = |name| work.join(name).symlink_metadata().is_ok();
    if moved.is_empty() && !has(CONTENT) && !has(STATE) {
        // Published by a process that was stopped before it could clean up.
        if let Some(claim) = try_claim(&work) {
            drop(remove_work(&work, Some(claim)));
        }
        return Err(not_empty(""));
    }
    if others.iter().any(|name| !moved.contains(name)) {
        let also = format!(", beside unfinished work of moeprune in {INSIDE}");
        return Err(not_empty(&also));
    }
    let claim = Claim::make(&work)?;
    let content = work.join(CONTENT);
    let still_there = |name: &OsString| content.join(name).symlink_metadata().is_ok();
    if !moved.iter().any(still_there) && moved.iter().all(|name| others.contains(name)) {
        drop(remove_work(&work, Some(claim)));
        return Err(not_empty(""));
    }
    fs::create_dir_all(&content).map_err(Error::io("create", &content))?;
    move_back(&content, place, &moved)?;
    remove_names(&work)?;
    Ok((work, claim))
}

/// Moves everything of the finished content into `place`, the entry called `last` after all others.
pub(super) fn publish(work: &Path, place: &Path, last: Option<&str>) -> Result<(), Error> {
    let content = work.join(CONTENT);
    let mut names = names_in(&content)?;
    names.sort_by_key(|name| (last.is_some_and(|last| name == last), name.clone()));
    let appeared = |name: &OsStr| {
        let reason = "has appeared while it was being written; nothing was replaced".to_owned();
        Error::Output { path: place.join(name), reason }
    };
    if let Some(taken) = names.iter().find(|name| place.join(name).symlink_metadata().is_ok()) {
        return Err(appeared(taken));
    }
    write_names(work, &names)?;
    let moved = names.iter().try_for_each(|name| {
        if last.is_some_and(|last| name == last) {
            durable::sync(place)?;
        }
        rename_to_new(&content.join(name), &place.join(name)).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => appeared(name),
            _ => Error::io("rename to", place.join(name))(e),
        })
    });
    if let Err(error) = moved {
        move_back(&content, place, &names)?;
        remove_names(work)?;
        return Err(error);
    }
    durable::sync(place)
}

/// What is in a folder that is to be filled and is not ours, nor the file system's.
fn others(place: &Path) -> Result<Vec<OsString>, Error> {
    let mut names = names_in(place)?;
    let is_mount = is_mount_point(place);
    names.retain(|name| name != INSIDE && !(is_mount && name == "lost+found"));
    Ok(names)
}

fn names_in(folder: &Path) -> Result<Vec<OsString>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(Error::io("list", folder))?;
    names.sort();
    Ok(names)
}

/// Moves back what is in `place` and no longer in the content.
fn move_back(content: &Path, place: &Path, names: &[OsString]) -> Result<(), Error> {
    for name in names {
        let (from, to) = (place.join(name), content.join(name));
        if to.symlink_metadata().is_err() && from.symlink_metadata().is_ok() {
            fs::rename(&from, &to).map_err(Error::io("rename to", &to))?;
        }
    }
    Ok(())
}

fn write_names(work: &Path, names: &[OsString]) -> Result<(), Error> {
    let unnamed = work.join(format!("{NAMES}.new"));
    write_and_rename(&unnamed, &work.join(NAMES), |file| {
        names.iter().try_for_each(|name| {
            file.write_all(name.as_encoded_bytes()).and_then(|()| file.write_all(&[0]))
        })
    })?;
    durable::sync(work)
}

fn remove_names(work: &Path) -> Result<(), Error> {
    let path = work.join(NAMES);
    fs::remove_file(&path).map_err(Error::io("remove", &path))
}

/// The names that an interrupted process was moving, of those that are in `place` or still here.
fn moved(work: &Path) -> Result<Vec<OsString>, Error> {
    let path = work.join(NAMES);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let place = work.parent().unwrap_or(work);
    let mut known = names_in(place)?;
    known.extend(names_in(&work.join(CONTENT)).unwrap_or_default());
    let listed = |name: &OsString| {
        bytes.split(|&byte| byte == 0).any(|listed| listed == name.as_encoded_bytes())
    };
    known.retain(|name| !name.is_empty() && name != INSIDE && listed(name));
    known.sort();
    known.dedup();
    Ok(known)
}

/// Some names, for a message.
fn listed(names: &[OsString]) -> String {
    let shown: Vec<_> = names.iter().take(3).map(|name| name.to_string_lossy()).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(unix)]
fn is_mount_point(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    folder.parent().is_none_or(|parent| device(folder) != device(parent))
}

#[cfg(not(unix))]
fn is_mount_point(_folder: &Path) -> bool {
    false
}
