//! Files, folders and patterns as one text, and each file as a domain.

use std::{fs, path::PathBuf};

use moeprune_engine::{ChatOptions, TextFiles};
use sha2::{Digest, Sha256};

use crate::model::{Folder, Reader};

fn hash(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

const LINES: &str = "{\"text\": \"one and two\"}\n{\"text\": \"three\"}\n";
const TOKENS: &str = "{\"tokens\": [5, 6, 7]}\n";

#[test]
fn documents_come_in_the_order_given() {
    let model = Reader::new();
    let folder = Folder::new([("a.jsonl", LINES), ("b.jsonl", TOKENS), ("c.txt", "four\n")]);
    let [a, b, c] = ["a.jsonl", "b.jsonl", "c.txt"].map(|name| folder.path(name));
    let one = |path: &PathBuf| model.row(TextFiles::from(path)).unwrap();
    let all = |paths: &[PathBuf]| model.row(TextFiles::new(paths)).unwrap();
    let [row_a, row_b, row_c] = [&a, &b, &c].map(one);
    assert_eq!(all(&[a.clone(), b.clone(), c.clone()]), [&row_a[..], &row_b, &row_c].concat());
    assert_eq!(all(&[c.clone(), a.clone()]), [&row_c[..], &row_a].concat());
    // A folder is its files by name.
    let whole = [folder.path("")];
    assert_eq!(all(&whole), [&row_a[..], &row_b, &row_c].concat());
    assert_eq!(all(&[folder.path("*.jsonl")]), [&row_a[..], &row_b].concat());
}

#[test]
fn one_file_has_its_own_hash_and_name() {
    let model = Reader::new();
    let folder = Folder::new([("a.jsonl", LINES), ("c.txt", "four five six\n")]);
    let [a, c] = ["a.jsonl", "c.txt"].map(|name| folder.path(name));
    let tag = |paths: &[PathBuf]| model.calibration(TextFiles::new(paths), 3).tag;
    let alone = tag(std::slice::from_ref(&a));
    assert_eq!((alone.name.as_str(), alone.sha256), ("a.jsonl", hash(LINES)));
    let both = tag(&[a.clone(), c.clone()]);
    assert_eq!(both.name, "a.jsonl and c.txt");
    assert_eq!(both.sha256, hash(&format!("{}\n{}\n", hash(LINES), hash("four five six\n"))));
    assert_ne!(tag(&[c, a]).sha256, both.sha256);
    let read = both.read.unwrap();
    assert_eq!((read.files, read.documents), (2, 3));
    assert_eq!(read.format, "JSON lines of `text`; plain text");
}

#[test]
fn what_was_read_is_counted() {
    let model = Reader::new();
    let folder = Folder::new([("b.jsonl", "{\"tokens\": [1, 2, 3, 4, 5]}\n{\"tokens\": [1]}\n")]);
    let path = folder.path("b.jsonl");
    let tag = model.calibration(TextFiles::from(&path), 3).tag;
    let read = tag.read.as_ref().unwrap();
    assert_eq!((read.documents, read.tokens, read.asked_len), (2, 5, None));
    assert_eq!(read.rendering, None);
    let longer = model.calibration(TextFiles::from(&path), 5).tag;
    assert_eq!(longer.read.unwrap().tokens, 6);
}

#[test]
fn an_error_names_the_file_among_several() {
    let model = Reader::new();
    let folder =
        Folder::new([("a.jsonl", LINES), ("b.jsonl", "{\"tokens\": [1]}\n{\"tokens\": [900]}\n")]);
    let error = model.row(TextFiles::new(&[folder.path("a.jsonl"), folder.path("b.jsonl")]));
    let error = error.unwrap_err();
    assert!(error.contains("b.jsonl line 2: token id 900"), "{error}");
    let error = model.row(TextFiles::new(&[folder.path("a.jsonl"), folder.path("none.txt")]));
    assert!(error.unwrap_err().contains("none.txt"));
    fs::write(folder.path("c.jsonl"), "{\"text\": \"a\"}\n{\"text\": 1}\n").unwrap();
    let error = model.row(TextFiles::new(&[folder.path("a.jsonl"), folder.path("c.jsonl")]));
    assert!(error.unwrap_err().contains("c.jsonl line 2: expected"));
}

#[test]
fn files_are_domains_by_their_names() {
    let folder = Folder::new([("a.jsonl", LINES), ("prose.txt", "four\n"), ("b.txt", "five\n")]);
    fs::create_dir(folder.path("x")).unwrap();
    fs::write(folder.path("x/b.jsonl"), LINES).unwrap();
    let domains = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.path(name)).collect();
        let found = TextFiles::new(&paths).domains().map_err(|e| e.to_string())?;
        Ok::<Vec<String>, String>(found.into_iter().map(|(name, _)| name).collect())
    };
    assert_eq!(domains(&["prose.txt", "a.jsonl"]).unwrap(), ["prose", "a"]);
    let error = domains(&["b.txt", "x/b.jsonl"]).unwrap_err();
    assert!(error.contains("are both called b"), "{error}");
}

#[test]
fn options_of_conversations_need_some() {
    let folder = Folder::new([("a.jsonl", LINES)]);
    let path = folder.path("a.jsonl");
    let chat = ChatOptions { system: Some("be brief"), tools: None };
    let error = TextFiles::from(&path).with_chat(chat).find().unwrap_err().to_string();
    assert!(error.contains("a.jsonl holds none: JSON lines of `text`"), "{error}");
}

/// A text in more than one piece has the tokens that it has as one document.
#[test]
fn a_long_plain_text_is_one_document() {
    let model = Reader::new();
    let text: String =
        (0..400_000_u32).map(|i| format!("{} ", u64::from(i) * u64::from(i) % 997)).collect();
    let line = serde_json::json!({ "text": text }).to_string();
    let folder = Folder::new([("plain.txt", &text), ("line.jsonl", &line)]);
    let row = |name: &str| model.row(TextFiles::from(&folder.path(name))).unwrap();
    assert!(text.len() > 1 << 20);
    assert!(row("plain.txt") == row("line.jsonl"));
}
