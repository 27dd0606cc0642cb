//! Every message that docs/troubleshooting.md explains is one that a crate writes.

use std::fs;

use crate::sources::{crates, root, rust_files};

/// The first cell of each row of the tables, between its backticks; a heading's and a rule's have none.
fn messages(document: &str) -> Vec<&str> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0)).collect()
}

/// A source with what is broken over lines inside of a string put together again.
fn unbroken(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| whole.push_str(part.trim_start()));
    whole
}

#[test]
fn explained_messages_are_written_somewhere() {
    let document = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let files = crates().into_iter().flat_map(|package| rust_files(&package.folder.join("src")));
    let sources: Vec<String> =
        files.map(|path| unbroken(&fs::read_to_string(path).unwrap())).collect();
    let messages = messages(&document);
    assert!(messages.len() > 30, "{} messages", messages.len());
    let unwritten: Vec<&str> = messages
        .into_iter()
        .filter(|message| !sources.iter().any(|source| source.contains(message)))
        .collect();
    assert!(unwritten.is_empty(), "no crate writes {unwritten:#?}");
}

#[test]
fn rows_and_broken_strings_are_read() {
    assert_eq!(messages("| a |\n|---|\n| `b c` | d | `e` |\ntext `f`\n"), ["b c"]);
    assert_eq!(unbroken("\"one \\\n   two\""), "\"one two\"");
}
