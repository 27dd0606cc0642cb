//! What makes two evaluations the same, so that the answers of one serve the other.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use moeprune_checkpoint::Checkpoint;
use moeprune_endpoint::RunKey;
use sha2::{Digest as _, Sha256};

use super::ServedModel;
use crate::{Error, Evaluation, Execution};

impl ServedModel {
    /// The key under which answers of this model to these tasks are kept.
    ///
    /// A limit is no part of it: what was asked is used again under a larger one.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn run_key(&self, tasks: &[Evaluation<'_>]) -> Result<RunKey, Error> {
        let (endpoint, mut run) = (&self.endpoint, RunKey::new());
        run = run.with("endpoint", endpoint.url()).with("model", endpoint.model());
        for (name, value) in endpoint.described() {
            run = run.with(format!("server's {name}"), value);
        }
        let context = self.reader.as_ref().map(|reader| reader.context);
        let context = context.into_iter().chain(endpoint.context()).min();
        let reader = match &self.reader {
            None => "the server's".to_owned(),
            Some(reader) => {
                let json = reader.tokenizer.to_string(false);
                let json = json
                    .map_err(|e| Error::Request(format!("the tokenizer cannot be written: {e}")))?;
                digits(Sha256::new().chain_update(json))
            }
        };
        let files = self.reader.as_ref().map_or("none", |reader| &reader.files);
        let run = run.with("checkpoint", files).with("tokenizer", reader).with(
            "context",
            context.map_or_else(|| "unknown".to_owned(), |tokens| tokens.to_string()),
        );
        run_key(run, tasks)
    }
}

/// The key under which answers of a checkpoint that is run here are kept.
///
/// # Errors
/// If the checkpoint or the data cannot be read.
pub fn native_run_key(
    checkpoint: &Checkpoint,
    execution: &Execution,
    tasks: &[Evaluation<'_>],
) -> Result<RunKey, Error> {
    let run = RunKey::new()
        .with("model", checkpoint.fingerprint()?)
        .with("checkpoint", files_hash(checkpoint)?)
        .with("device", execution.name());
    run_key(run, tasks)
}

/// The hash of what tells a checkpoint's files from others: also of one that was pruned within unchanged routers,
/// which its fingerprint does not tell from the model that it was.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn files_hash(checkpoint: &Checkpoint) -> Result<String, Error> {
    let mut hash = Sha256::new();
    for file in checkpoint.content_hashes()? {
        let known = file.whole.as_deref().unwrap_or(&file.sampled);
        for text in [&file.name, known] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    Ok(digits(hash))
}

/// Adds to the key of a run what it evaluates: the tasks, the hashes of their data, and how they are worded.
///
/// # Errors
/// If the data cannot be read.
fn run_key(run: RunKey, tasks: &[Evaluation<'_>]) -> Result<RunKey, Error> {
    let joined = |of: &dyn Fn(&Evaluation<'_>) -> Result<String, Error>| {
        let parts = tasks.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        Ok::<String, Error>(parts.join(", "))
    };
    let shots = |what: &Evaluation<'_>| match what.fewshot {
        None => "as the task says".to_owned(),
        Some(shots) => shots.to_string(),
    };
    let examples =
        |what: &Evaluation<'_>| what.fewshot_data.map_or(Ok("none".to_owned()), data_hash);
    Ok(run
        .with("task", joined(&|what| Ok(what.task.to_owned()))?)
        .with("data", joined(&|what| data_hash(what.data))?)
        .with("fewshot", joined(&|what| Ok(shots(what)))?)
        .with("fewshot-data", joined(&examples)?))
}

/// The SHA-256 of a file, or of a folder's files with their names; of what can be read once only, such as a pipe, a
/// word in its place.
///
/// # Errors
/// If it cannot be read.
fn data_hash(path: &Path) -> Result<String, Error> {
    let io = |source| Error::io(path, "read", source);
    let data = std::fs::metadata(path).map_err(io)?;
    if data.is_file() {
        let mut hash = Sha256::new();
        add_file(&mut hash, path).map_err(io)?;
        return Ok(digits(hash));
    }
    if !data.is_dir() {
        return Ok("not a regular file".to_owned());
    }
    let (mut files, mut hash) = (Vec::new(), Sha256::new());
    add_names(path, &mut files).map_err(io)?;
    files.sort();
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        add_file(&mut hash, &file).map_err(io)?;
    }
    Ok(digits(hash))
}

fn add_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let (mut file, mut piece, mut length) = (File::open(path)?, vec![0; 1 << 20], 0_u64);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        length += read as u64;
    }
    hash.update(length.to_le_bytes());
    Ok(())
}

fn add_names(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // Links are followed, as reading the data does. One into a folder is not: it may lead back.
        let kind = std::fs::metadata(&path)?;
        if kind.is_dir() && !path.is_symlink() {
            add_names(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn digits(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let hash = |name: &str| data_hash(&path(name)).unwrap();
        std::fs::write(path("a"), "x").unwrap();
        std::fs::write(path("b"), "x").unwrap();
        std::fs::write(path("c"), "y").unwrap();
        assert_eq!(hash("a"), hash("b"));
        assert_ne!(hash("a"), hash("c"));
        std::fs::create_dir_all(path("f/in")).unwrap();
        std::fs::write(path("f/in/one"), "x").unwrap();
        let before = hash("f");
        std::fs::rename(path("f/in/one"), path("f/in/two")).unwrap();
        assert_ne!(hash("f"), before);
        std::fs::rename(path("f/in/two"), path("f/in/one")).unwrap();
        assert_eq!(hash("f"), before);
        assert!(data_hash(&path("missing")).unwrap_err().to_string().contains("missing"));
    }
}
