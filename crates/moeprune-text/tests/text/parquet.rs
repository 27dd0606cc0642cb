//! Parquet and zstd files that other programs wrote (`scripts/make-text-fixtures.py`), and damaged ones.

use std::{fs, path::PathBuf};

use moeprune_text::{Content, Error, ReadOptions, TextFile};

use crate::made::{file, records};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/text/files").join(name)
}

/// The names of the files that begin with `beginning`.
fn files(beginning: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let is = |path: &PathBuf| name(path).starts_with(beginning) && name(path).ends_with(".parquet");
    let mut found: Vec<PathBuf> = all.filter(is).collect();
    found.sort();
    found
}

fn contents(path: PathBuf) -> Result<Vec<Content>, Error> {
    Ok(records(&TextFile::open(path)?)?.into_iter().map(|record| record.content).collect())
}

/// Holds all files of a group to the JSON lines beside them.
fn check(group: &str, count: usize, format: &str) {
    let expected = contents(path(&format!("{group}.jsonl"))).unwrap();
    let found = files(group);
    assert_eq!(found.len(), count, "{found:?}");
    for path in found {
        assert_eq!(TextFile::open(&path).unwrap().format().to_string(), format);
        assert_eq!(contents(path.clone()).unwrap(), expected, "{}", path.display());
    }
}

#[test]
fn codecs_versions_and_dictionaries() {
    check("codec", 24, "Parquet rows of `text`");
}

#[test]
fn encodings_and_types() {
    check("encoding", 6, "Parquet rows of `text`");
    check("tokens", 4, "Parquet rows of `tokens`");
}

#[test]
fn nested_columns_with_nulls() {
    check("chats", 2, "Parquet rows of `messages`");
    check("sharegpt", 1, "Parquet rows of `conversations`");
    let chats = contents(path("map.parquet")).unwrap();
    let shown: Vec<String> = chats.iter().map(|chat| format!("{chat:?}")).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn archives_of_the_reference_implementation() {
    let text = fs::read_to_string(path("words.txt")).unwrap();
    for name in ["words.zst", "words-frames.zst"] {
        let expected = [Content::Piece { text: text.clone(), last: true }];
        assert_eq!(contents(path(name)).unwrap(), expected, "{name}");
    }
}

fn said(name: &str) -> String {
    let message = contents(path(name)).unwrap_err().to_string();
    message.replace(&format!("{}/", path("").display().to_string().trim_end_matches('/')), "")
}

#[test]
fn what_is_not_read_is_named() {
    let names = ["empty", "columns", "null", "latin", "split-read"];
    let said = names.map(|name| said(&format!("{name}.parquet")));
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(contents(path("split.parquet")).unwrap(), [Content::Text("a".to_owned())]);
    let error = TextFile::open_with(path("split.parquet"), &ReadOptions::questions()).unwrap_err();
    assert!(
        error.to_string().contains("got a Parquet file with columns `text`, `tokens`"),
        "{error}"
    );
}

#[test]
fn another_column_has_the_text() {
    let mut options = ReadOptions::default();
    options.text_key = Some("body".to_owned());
    let file = TextFile::open_with(path("columns.parquet"), &options).unwrap();
    assert_eq!(records(&file).unwrap()[0].content, Content::Text("a".to_owned()));
}

/// Small files of all kinds of pages.
const KINDS: [&str; 7] = [
    "codec-none-v1-dictionary",
    "codec-zstd-v2-plain",
    "codec-lz4-v1-plain",
    "encoding-delta-v1",
    "encoding-delta-length-v2",
    "map",
    "sharegpt",
];

#[test]
fn levels_that_are_not_there_may_be_stored_in_any_way() {
    let mut bytes = fs::read(path("codec-none-v1-plain.parquet")).unwrap();
    let runs_for_both = *b"\x15\x06\x15\x06";
    let mut changed = 0;
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == runs_for_both {
            bytes[at + 3] = 8; // packed bits, as Java's writers say of columns without repetition
            changed += 1;
        }
    }
    assert!(changed > 3);
    let (_folder, changed) = file(bytes);
    assert_eq!(contents(changed).unwrap(), contents(path("codec.jsonl")).unwrap());
}

#[test]
fn cut_files_are_refused() {
    for name in KINDS {
        let whole = fs::read(path(&format!("{name}.parquet"))).unwrap();
        for length in (16..whole.len()).step_by(7) {
            let (_folder, path) = file(&whole[..length]);
            assert!(contents(path).is_err(), "{name} {length}");
        }
    }
}

#[test]
fn changed_bytes_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path_of_changed = folder.path().join("changed");
    for name in KINDS {
        let whole = fs::read(path(&format!("{name}.parquet"))).unwrap();
        for n in (0..whole.len()).step_by(5) {
            let mut changed = whole.clone();
            let mask = if n % 2 == 0 { 0xff } else { 1 << (n / 2 % 8) };
            changed[n] ^= mask;
            fs::write(&path_of_changed, changed).unwrap();
            if let Ok(file) = TextFile::open(&path_of_changed) {
                assert!(file.records().map_or(0, Iterator::count) < 1 << 20, "{name} {n} {mask}");
            }
        }
    }
}
