//! The files of problems that are committed beside the model.

use crate::corpus::Corpus;
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
        calibration += &json!({ "text": text }).to_string();
        calibration.push('\n');
    }
    Ok([
        ("test.jsonl", test),
        ("calibration.jsonl", calibration),
        ("heldout.txt", corpus.held_out_text()),
    ])
}

/// Writes the files of `corpus` to `directory`.
pub fn write(corpus: &Corpus, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    for (name, text) in files(corpus)? {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
