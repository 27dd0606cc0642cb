//! Files that tests make.

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use moeprune_text::{Content, Error, Record, TextFile};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tempfile::TempDir;

/// A file of these bytes, under a name that says nothing.
pub(crate) fn file(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    named("text", bytes)
}

/// A file of these bytes.
pub(crate) fn named(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub(crate) fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    compress_to_vec(bytes.as_ref(), CompressionLevel::Fastest)
}

/// All records of a file, twice, as reading has no memory.
pub(crate) fn records(file: &TextFile) -> Result<Vec<Record>, Error> {
    let all = || -> Result<Vec<Record>, Error> { file.records()?.collect() };
    let first = all()?;
    assert_eq!(first, all()?);
    Ok(first)
}

/// What the records of a file of these bytes hold, each as one line: its place, and its content as JSON.
pub(crate) fn shown(bytes: impl AsRef<[u8]>) -> String {
    shown_named("text", bytes)
}

pub(crate) fn shown_named(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let (_folder, path) = named(name, bytes);
    let file = TextFile::open(path).unwrap();
    let lines =
        records(&file).unwrap().into_iter().map(|r| format!("{}: {}", r.place, line(&r.content)));
    [file.format().to_string()].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

fn line(content: &Content) -> String {
    match content {
        Content::Text(text) => format!("{text:?}"),
        Content::Piece { text, last } => {
            format!("piece {text:?}{}", if *last { ", last" } else { "" })
        }
        Content::Question { question, answer } => format!("question {question:?} {answer:?}"),
        Content::Tokens(ids) => format!("{ids:?}"),
        Content::Conversation(chat) => {
            let messages: Vec<_> = chat.messages.iter().map(ToString::to_string).collect();
            let tools =
                chat.tools.as_ref().map_or_else(String::new, |tools| format!(" tools {tools}"));
            format!("{}{tools}", messages.join(" "))
        }
        other => panic!("{other:?}"),
    }
}

/// The error of opening a file of these bytes or of reading it, its path left out.
pub(crate) fn error(bytes: impl AsRef<[u8]>) -> String {
    error_named("text", bytes)
}

pub(crate) fn error_named(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let (_folder, path) = named(name, bytes);
    let read = || -> Result<(), Error> {
        let file = TextFile::open(&path)?;
        let mut records = file.records()?;
        let ended = records.by_ref().find(Result::is_err);
        assert!(records.next().is_none(), "after an error there are no more");
        ended.map_or(Ok(()), |error| error.map(drop))
    };
    read().unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
}
