//! The small quantised models of `assets/quantised`, and what is expected of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The folder that has one for each model.
fn root() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let assets = above.map(|folder| folder.join("assets/quantised"));
    assets.into_iter().find(|folder| folder.is_dir()).expect("the workspace has its assets")
}

/// The models' names, sorted.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).expect("lists").map(|entry| entry.expect("lists"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().expect("is UTF-8")).collect();
    names.sort();
    assert_eq!(names.len(), 15, "{names:?}");
    names
}

/// The folder of a model.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    root().join(name)
}

/// What other code found of a model: its `expect.json`.
#[must_use]
pub fn expected(name: &str) -> Value {
    let text = fs::read_to_string(folder(name).join("expect.json")).expect("reads");
    serde_json::from_str(&text).expect("is JSON")
}
