//! How much memory large files take. A test binary of its own, as the peak is the process's.

#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use moeprune_text::{Content, TextFile};

const SIZE: usize = 200 << 20;
const MOST: u64 = 24 << 20;

/// The peak of the process's memory, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Writes `first`, then `unit` until the file is long, then `last`.
fn write(path: &Path, first: &str, unit: &str, last: &str) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(first.as_bytes()).unwrap();
    for _ in 0..SIZE / unit.len() {
        file.write_all(unit.as_bytes()).unwrap();
    }
    file.write_all(last.as_bytes()).unwrap();
}

/// Bytes of text in a file.
fn text(path: &Path, format: &str) -> usize {
    let file = TextFile::open(path).unwrap();
    assert_eq!(file.format().to_string(), format);
    let length = |content| match content {
        Content::Text(text) | Content::Piece { text, .. } => text.len(),
        other => panic!("{other:?}"),
    };
    file.records().unwrap().map(|record| length(record.unwrap().content)).sum()
}

#[test]
fn large_files_cost_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let before = peak();
    let words = "Moths fly at night, and nobody asks why. ".repeat(25);

    write(&path, "", &words, "");
    assert_eq!(text(&path, "plain text"), SIZE / words.len() * words.len());

    let item = format!("{{\"text\": \"{words}\"}},\n");
    write(&path, "[", &item, "{\"text\": \"\"}]");
    assert_eq!(text(&path, "a JSON array of `text`"), SIZE / item.len() * words.len());

    let grown = peak() - before;
    assert!(grown < MOST, "{grown} bytes more");
}
