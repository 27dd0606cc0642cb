//! The files of a model directory that are not weights.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE};

use crate::{Checkpoint, Error, checkpoint::CONFIG_FILE, index::INDEX_FILE};

/// What was copied, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CopiedFiles {
    /// Files copied, relative to the model directory, in order.
    pub copied: Vec<PathBuf>,
    /// Files and folders left out, and why.
    pub left_out: Vec<(PathBuf, String)>,
}

/// Endings of files that hold the weights of the unpruned model, in whatever format.
const WEIGHTS: [&str; 11] = [
    "safetensors",
    "safetensors.index.json",
    "bin",
    "bin.index.json",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "h5",
    "msgpack",
    "onnx",
];

/// What a run leaves beside the weights, about its own source.
const REPORTS: [&str; 2] = [REPORT_FILE, REPORT_TEXT_FILE];

/// Copies into the directory `to`; each file lies at `unnamed` until it is complete.
pub(super) fn copy(source: &Checkpoint, to: &Path, unnamed: &Path) -> Result<CopiedFiles, Error> {
    let files = auxiliary_files(source)?;
    for relative in &files.copied {
        let (from, to) = (source.dir().join(relative), to.join(relative));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        // A copy is as read-only as its source, so one that was interrupted could not be opened.
        if unnamed.symlink_metadata().is_ok() {
            fs::remove_file(unnamed).map_err(Error::io("remove", unnamed))?;
        }
        fs::copy(&from, unnamed)
            .and_then(|_| fs::rename(unnamed, &to))
            .map_err(Error::io(format!("copy to {} from", to.display()), &from))?;
    }
    Ok(files)
}

/// Lists what [`copy`] would copy.
pub(crate) fn auxiliary_files(source: &Checkpoint) -> Result<CopiedFiles, Error> {
    let mut files = CopiedFiles::default();
    list(source, Path::new(""), &mut files)?;
    Ok(files)
}

fn list(source: &Checkpoint, folder: &Path, files: &mut CopiedFiles) -> Result<(), Error> {
    let directory = source.model_directory();
    let here = directory.path.join(folder);
    let mut entries = fs::read_dir(&here)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(Error::io("list", &here))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let relative = folder.join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(Error::io("inspect", entry.path()))?;
        let written_anew = [CONFIG_FILE, INDEX_FILE].into_iter().chain(source.shard_files());
        if written_anew.into_iter().any(|file| relative == Path::new(file)) {
            continue;
        }
        let left_out = if name.starts_with('.') {
            "hidden"
        } else if kind.is_symlink() && entry.path().is_dir() {
            "a link to a folder"
        } else if kind.is_dir() {
            list(source, &relative, files)?;
            continue;
        } else if REPORTS.iter().any(|report| relative == Path::new(report)) {
            "the report of an earlier run"
        } else if WEIGHTS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            "weights of the unpruned model"
        } else {
            directory.file(&relative).map_err(|reason| {
                let dir = directory.path.clone();
                Error::Weights { dir, reason }
            })?;
            files.copied.push(relative);
            continue;
        };
        files.left_out.push((relative, left_out.to_owned()));
    }
    Ok(())
}
