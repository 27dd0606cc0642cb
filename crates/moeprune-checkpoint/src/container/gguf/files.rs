//! Which files a GGUF model is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE};
use moeprune_files::{ChosenFiles, Files, LocalFiles, Reading};
use moeprune_gguf::SplitName;

use super::EXTENSION;
use crate::{Error, reports::reports_beside};

/// The files of a model that a path names: a `.gguf` file, the first of several, or a folder in which there is
/// one such model and no `config.json`; with the reports of the run that made it, under the names that they have
/// in a folder. `None` if the path is of another kind.
///
/// # Errors
/// If it is another file than the first of several, or a folder has several models.
pub(crate) fn files_of_model(path: &Path, reading: Reading) -> Result<Option<ChosenFiles>, Error> {
    let bad = |reason: String| Err(Error::Weights { dir: path.to_owned(), reason });
    if path.is_dir() {
        let names = models_in(path)?;
        return match &names[..] {
            _ if path.join("config.json").exists() => Ok(None),
            [] => Ok(None),
            [name] => chosen(path, &path.join(name), reading).map(Some),
            several => bad(format!(
                "has several GGUF models ({}, …) and no config.json; name the file of one",
                several[..2].join(", ")
            )),
        };
    }
    if !path.is_file() || !is_gguf(path) {
        return Ok(None);
    }
    // A link names what the user means; in a download cache, what it leads to has no name of its own.
    let real = path.canonicalize().map_err(Error::io("open", path))?;
    let path = if is_gguf(&real) { &real } else { path };
    let name = name_of(path);
    match SplitName::of(&name) {
        Some(split) if split.number != 1 => {
            let SplitName { number, count, .. } = split;
            bad(format!("is file {number} of {count}; name the first, {}", at(&split, 1)))
        }
        _ => chosen(path, path, reading).map(Some),
    }
}

/// The files of the model whose first is `first`; messages call it `place`.
fn chosen(place: &Path, first: &Path, reading: Reading) -> Result<ChosenFiles, Error> {
    let folder = match first.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let files = LocalFiles::open(folder, reading)
        .map_err(|e| Error::Weights { dir: folder.to_owned(), reason: e.to_string() })?;
    let name = name_of(first);
    let split = SplitName::of(&name).filter(|split| split.count > 1);
    let weights = match &split {
        Some(split) => all_of(split, &files, place)?,
        None => vec![name],
    };
    let reports: Vec<(&str, PathBuf)> = match split {
        Some(_) => {
            vec![(REPORT_FILE, REPORT_FILE.into()), (REPORT_TEXT_FILE, REPORT_TEXT_FILE.into())]
        }
        None => {
            let beside = reports_beside(first).into_iter();
            beside.map(|(name, path)| (name, name_of(&path).into())).collect()
        }
    };
    let weights = weights.into_iter().map(|name| (PathBuf::from(&name), PathBuf::from(name)));
    let names = weights.chain(reports.into_iter().map(|(name, path)| (PathBuf::from(name), path)));
    Ok(ChosenFiles::new(place, Arc::new(files) as Arc<dyn Files>, names))
}

/// The names of all files of a set.
fn all_of(split: &SplitName, files: &dyn Files, place: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for number in 1..=split.count {
        let name = at(split, number);
        if !files.has(Path::new(&name)).map_err(Error::in_files(files))? {
            let reason =
                format!("{name} is missing, file {number} of {}; download it again", split.count);
            return Err(Error::Weights { dir: place.to_owned(), reason });
        }
        names.push(name);
    }
    Ok(names)
}

/// The first files of the models in a folder, in the order of their names.
fn models_in(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = folder.read_dir().map_err(Error::io("list", folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_first = |name: &String| SplitName::of(name).is_none_or(|split| split.number == 1);
    let is_model = |name: &String| {
        is_gguf(Path::new(name)) && !name.starts_with('.') && !name.starts_with("mmproj")
    };
    let mut names: Vec<String> = names.filter(|name| is_model(name) && is_first(name)).collect();
    names.sort();
    Ok(names)
}

/// The name of another file of the same set.
fn at(split: &SplitName, number: u64) -> String {
    SplitName { number, ..split.clone() }.to_string()
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
