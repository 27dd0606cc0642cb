//! GSM8K itself, and what the harness made of it.

#![allow(dead_code, reason = "every test reads its part")]

use std::{fs, path::PathBuf};

use moeprune_eval::Document;

pub(crate) fn train_documents() -> Vec<Document> {
    documents("train.jsonl")
}

pub(crate) fn test_documents() -> Vec<Document> {
    documents("test.jsonl")
}

fn documents(name: &str) -> Vec<Document> {
    let text = fs::read_to_string(asset(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A file of the data set.
pub(crate) fn asset(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../assets/gsm8k", name].iter().collect()
}

/// A file recorded from the harness.
pub(crate) fn recorded(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
