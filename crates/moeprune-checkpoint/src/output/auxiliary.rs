//! The files of a model directory that are not weights.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE};
use moeprune_files::{FileEntry, FileKind, ReadAt};

use crate::{Checkpoint, Error, checkpoint::CONFIG_FILE, container::INDEX_FILE};

/// What was copied, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CopiedFiles {
    /// Files copied, relative to the model directory, in order.
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

/// Copies into the directory `to`; each file lies at `unnamed` until it is complete.
pub(super) fn copy(source: &Checkpoint, to: &Path, unnamed: &Path) -> Result<CopiedFiles, Error> {
    let files = auxiliary_files(source)?;
    for relative in &files.copied {
        let (from, to) = (source.files().path_of(relative), to.join(relative));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        // A copy is as read-only as its source, so one that was interrupted could not be opened.
        if unnamed.symlink_metadata().is_ok() {
            fs::remove_file(unnamed).map_err(Error::io("remove", unnamed))?;
        }
        copy_file(&*open(source, relative)?, unnamed)
            .and_then(|()| fs::rename(unnamed, &to))
            .map_err(Error::io(format!("copy to {} from", to.display()), &from))?;
    }
    Ok(files)
}

/// Opens a file that was listed.
pub(crate) fn open(source: &Checkpoint, relative: &Path) -> Result<Box<dyn ReadAt>, Error> {
    let files = source.files();
    let file = files.open(relative).map_err(Error::in_files(files))?;
    file.ok_or_else(|| Error::io("open", files.path_of(relative))(io::ErrorKind::NotFound.into()))
}

/// Copies a file, and its permissions where it is on this machine.
fn copy_file(from: &dyn ReadAt, to: &Path) -> io::Result<()> {
    let mut target = File::create(to)?;
    if let Some(mut local) = from.local()? {
        io::copy(&mut local, &mut target)?;
        return target.set_permissions(local.metadata()?.permissions());
    }
    for piece in pieces(from.len()) {
        io::Write::write_all(&mut target, &from.read_at(piece)?)?;
    }
    Ok(())
}

/// Ranges that a file of any size is read in.
pub(crate) fn pieces(bytes: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    const PIECE: u64 = 1 << 20;
    (0..bytes.div_ceil(PIECE)).map(move |i| i * PIECE..bytes.min((i + 1) * PIECE))
}

/// Lists what [`copy`] would copy.
pub(crate) fn auxiliary_files(source: &Checkpoint) -> Result<CopiedFiles, Error> {
    let mut files = CopiedFiles::default();
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
        } else if kind == FileKind::Folder {
            list(source, &relative, files)?;
            continue;
        } else if REPORTS.iter().any(|report| relative == Path::new(report)) {
            "the report of an earlier run"
        } else if WEIGHTS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            "weights of the unpruned model"
        } else {
            open(source, &relative)?;
            files.copied.push(relative);
            continue;
        };
        files.left_out.push((relative, left_out.to_owned()));
    }
    Ok(())
}
