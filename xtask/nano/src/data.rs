//! The files of problems that are committed beside the model.

use crate::corpus::{Corpus, DOCUMENT, document};
use crate::story::Kind;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::Path;

/// The name and content of each file of `corpus`.
///
/// `test.jsonl` has GSM8K's keys; `calibration.jsonl` a document of several problems a line;
/// `heldout.txt` is plain text.
pub fn files(corpus: &Corpus) -> Result<[(&'static str, String); 3]> {
    let mut test = String::new();
    for problem in &corpus.test {
        test += &serde_json::to_string(problem)?;
        test.push('\n');
    }
    let mut calibration = String::new();
    for text in corpus.calibration_documents() {
        calibration += &line(&text);
    }
    Ok([
        ("test.jsonl", test),
        ("calibration.jsonl", calibration),
        ("heldout.txt", corpus.held_out_text()),
    ])
}

/// The name and content of each file of the folder `kinds`: calibration and held-out text of one
/// kind of problems.
pub fn kinds(corpus: &Corpus) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (name, kind) in [("earning", Kind::Earning), ("having", Kind::Having)] {
        let calibration = corpus.of_kind(&corpus.calibration, kind);
        let documents = calibration.chunks_exact(DOCUMENT).map(|own| line(&document(own)));
        files.push((format!("{name}.jsonl"), documents.collect()));
        let held_out = corpus.of_kind(&corpus.held_out, kind);
        files.push((format!("{name}-heldout.txt"), document(&held_out) + "\n"));
    }
    files
}

fn line(text: &str) -> String {
    json!({ "text": text }).to_string() + "\n"
}

/// Writes the files of `corpus` to `directory`, with those by kind of problem in a folder `kinds`.
pub fn write(corpus: &Corpus, directory: &Path) -> Result<()> {
    let within = directory.join("kinds");
    fs::create_dir_all(&within).with_context(|| format!("making {}", within.display()))?;
    let files = files(corpus)?.map(|(name, text)| (directory.join(name), text));
    let kinds = kinds(corpus).into_iter().map(|(name, text)| (within.join(name), text));
    for (path, text) in files.into_iter().chain(kinds) {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
