//! The files of a model directory that are not weights.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE};
use moeprune_files::{FileEntry, FileKind, ReadAt, StandIn};

use super::cards::{is_too_far_back, place_of_copy};
use crate::{Checkpoint, Error, checkpoint::CONFIG_FILE, container::INDEX_FILE};

/// What was copied, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CopiedFiles {
    /// Files copied, relative to the model directory, in order. [`place_of_copy`](crate::place_of_copy) says where
    /// in the result each is.
    pub copied: Vec<PathBuf>,
    /// Files and folders left out, and why.
    pub left_out: Vec<(PathBuf, String)>,
}

/// Endings of files that hold the weights of the unpruned model, in any format.
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

/// What a pruned model cannot be used without: tokenizer, chat template, generation config, preprocessing.
const NEEDED: [&str; 16] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
];

/// In how many folders a file beside the weights may be.
const DEEPEST: usize = 32;

/// Copies files into the directory `to`; each lies at `unnamed` until it is complete. What cannot be read any
/// more is left out.
pub(super) fn copy(
    source: &Checkpoint,
    files: &CopiedFiles,
    to: &Path,
    unnamed: &Path,
) -> Result<CopiedFiles, Error> {
    let mut done = CopiedFiles { copied: Vec::new(), left_out: files.left_out.clone() };
    for relative in &files.copied {
        let to = to.join(place_of_copy(relative));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        // A copy is as read-only as its source, so one that was interrupted could not be opened.
        if unnamed.symlink_metadata().is_ok() {
            fs::remove_file(unnamed).map_err(Error::io("remove", unnamed))?;
        }
        let from = match open(source, relative) {
            Ok(from) => from,
            Err(error) => {
                done.leave_out(source, relative, error.to_string())?;
                continue;
            }
        };
        match copy_file(&*from, unnamed) {
            Ok(()) => {
                fs::rename(unnamed, &to).map_err(Error::io("rename to", &to))?;
                done.copied.push(relative.clone());
            }
            Err(Failed::Reading(e)) => {
                done.leave_out(source, relative, format!("cannot be read: {e}"))?;
            }
            Err(Failed::Writing(e)) => return Err(Error::io("write", &to)(e)),
        }
    }
    Ok(done)
}

impl CopiedFiles {
    /// Leaves out what cannot be read, unless the pruned model needs it.
    fn leave_out(
        &mut self,
        source: &Checkpoint,
        relative: &Path,
        why: String,
    ) -> Result<(), Error> {
        let path = source.files().path_of(relative);
        let named = path.display().to_string();
        let dir = format!("{}: ", source.files().place().display());
        let why = why.strip_prefix(&dir).unwrap_or(&why);
        let why = why.strip_prefix(&named).map_or(why, str::trim_start).to_owned();
        if NEEDED.iter().any(|needed| relative == Path::new(needed)) {
            let reason = format!(
                "{named} {why}; a pruned model is of no use without it, so mend the file, or remove it if the \
                 model is to do without"
            );
            return Err(moeprune_files::Error::Unreadable { path, reason }.into());
        }
        self.left_out.push((relative.to_owned(), why));
        Ok(())
    }
}

/// Opens a file that was listed.
pub(crate) fn open(source: &Checkpoint, relative: &Path) -> Result<Box<dyn ReadAt>, Error> {
    let files = source.files();
    let file = files.open(relative).map_err(Error::in_files(files))?;
    file.ok_or_else(|| Error::io("open", files.path_of(relative))(io::ErrorKind::NotFound.into()))
}

/// Why a file was not copied.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies a file, and its permissions where it is on this machine and the file system has some.
fn copy_file(from: &dyn ReadAt, to: &Path) -> Result<(), Failed> {
    let mut target = File::create(to).map_err(Failed::Writing)?;
    let Some(mut local) = from.local().map_err(Failed::Reading)? else {
        for piece in pieces(from.len()) {
            let bytes = from.read_at(piece).map_err(Failed::Reading)?;
            target.write_all(&bytes).map_err(Failed::Writing)?;
        }
        return Ok(());
    };
    let mut buffer = vec![0; 1 << 20];
    loop {
        match local.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => target.write_all(&buffer[..read]).map_err(Failed::Writing)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failed::Reading(e)),
        }
    }
    if let Ok(metadata) = local.metadata() {
        // Not every file system has permissions (vfat, some of CIFS).
        let _ = target.set_permissions(metadata.permissions());
    }
    Ok(())
}

/// Ranges that a file of any size is read in.
pub(crate) fn pieces(bytes: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    const PIECE: u64 = 1 << 20;
    (0..bytes.div_ceil(PIECE)).map(move |i| i * PIECE..bytes.min((i + 1) * PIECE))
}

/// Whether a file can be read, by its beginning.
fn check(source: &Checkpoint, relative: &Path) -> Result<(), String> {
    let file = open(source, relative).map_err(|e| e.to_string())?;
    let beginning = file.read_at(0..file.len().min(StandIn::BYTES as u64));
    let beginning = beginning.map_err(|e| format!("cannot be read: {e}"))?;
    StandIn::pointer(&beginning).map_or(Ok(()), |stand_in| Err(stand_in.to_string()))
}

/// Lists what [`copy`] would copy, each file opened and its beginning read: what cannot be is left out.
///
/// # Errors
/// If that is a file that a pruned model needs, or says how modules are quantised.
pub(crate) fn auxiliary_files(source: &Checkpoint) -> Result<CopiedFiles, Error> {
    let mut files = CopiedFiles::default();
    source.check_quantization_files()?;
    list(source, Path::new(""), &mut files)?;
    for (file, count) in source.unnamed_extra() {
        let of_file = files.left_out.iter_mut().find(|(path, _)| *path == Path::new(&file));
        if let Some((_, why)) = of_file {
            *why = format!(
                "it holds {count} tensors for multi-token prediction that no index names, so that the \
                 result is without them; name them in {INDEX_FILE} to keep them"
            );
        }
    }
    Ok(files)
}

fn list(source: &Checkpoint, folder: &Path, files: &mut CopiedFiles) -> Result<(), Error> {
    let entries = source.files().list(folder).map_err(Error::in_files(source.files()))?;
    for FileEntry { name, kind } in entries {
        let relative = folder.join(&name);
        let name = name.to_string_lossy();
        let written_anew =
            [CONFIG_FILE].into_iter().chain(source.index_file()).chain(source.shard_files());
        let is_config = Checkpoint::is_quantization_file(&relative) && kind != FileKind::Folder;
        if is_config || written_anew.into_iter().any(|file| relative == Path::new(file)) {
            continue;
        }
        let left_out = if name.starts_with('.') {
            "hidden"
        } else if kind == FileKind::LinkToFolder {
            "a link to a folder"
        } else if kind == FileKind::Folder && relative.components().count() > DEEPEST {
            "a folder in too many others"
        } else if kind == FileKind::Folder {
            if let Err(error) = list(source, &relative, files) {
                match error {
                    Error::Io { .. } | Error::Files(moeprune_files::Error::Io { .. }) => {
                        files.leave_out(source, &relative, error.to_string())?;
                    }
                    error => return Err(error),
                }
            }
            continue;
        } else if is_too_far_back(&relative) {
            "the card of too early a base"
        } else if REPORTS.iter().any(|report| relative == Path::new(report)) {
            "the report of an earlier run"
        } else if WEIGHTS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            "weights of the unpruned model"
        } else {
            match check(source, &relative) {
                Ok(()) => files.copied.push(relative),
                Err(why) => files.leave_out(source, &relative, why)?,
            }
            continue;
        };
        files.left_out.push((relative, left_out.to_owned()));
    }
    Ok(())
}
