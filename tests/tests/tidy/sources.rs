//! The sources of the workspace, parsed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file.
pub(crate) struct Source {
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// Names of the modules from the crate's root to this file's; empty for `lib.rs` and `main.rs`.
    pub(crate) module: Vec<String>,
    pub(crate) syntax: syn::File,
}

/// A package whose sources are checked.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates in `crates/`, by name.
pub(crate) fn crates() -> Vec<Package> {
    let mut found: Vec<Package> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| Package {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            folder,
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 10, "{} crates", found.len());
    found
}

/// Every package with sources: the crates, the chores in `xtask/` and what `tests/` is made of.
pub(crate) fn packages() -> Vec<Package> {
    let mut found = crates();
    for folder in ["xtask", "tests"] {
        let inside = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut folders: Vec<PathBuf> = [root().join(folder)].into_iter().chain(inside).collect();
        folders.sort();
        folders.retain(|folder| folder.join("Cargo.toml").is_file() && folder.join("src").is_dir());
        found.extend(folders.into_iter().map(|folder| Package {
            name: folder.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
            folder,
        }));
    }
    found
}

/// All files of Rust below a folder, by path, except what was built there.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    collect(folder, &mut paths);
    paths.sort();
    paths
}

impl Package {
    /// All files below `src`, by path.
    pub(crate) fn sources(&self) -> Vec<Source> {
        rust_files(&self.folder.join("src")).iter().map(|path| self.source(path)).collect()
    }

    fn source(&self, path: &Path) -> Source {
        let text = fs::read_to_string(path).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inside = path.strip_prefix(self.folder.join("src")).unwrap().with_extension("");
        let mut module: Vec<String> =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        if let [only] = &module[..]
            && (only == "lib" || only == "main")
        {
            module.clear();
        }
        let shown = path.strip_prefix(root()).unwrap();
        Source { path: shown.display().to_string(), module, syntax }
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Whether an item is only compiled for tests.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}
