//! What is said of files that are damaged or mixed.

use moeprune_text::{ReadOptions, TextFile};

use crate::made::{error, file, gzip, records, zstd};

fn all(cases: &[(&str, &[u8])]) -> String {
    cases.iter().map(|(what, bytes)| format!("{what}: {}\n", error(bytes))).collect()
}

#[test]
fn lines_say_where() {
    let cases: [(&str, &[u8]); 16] = [
        ("empty", b""),
        ("blank", b" \n\t\n"),
        ("no known key", b"{\"content\": \"a\", \"id\": 3}\n"),
        ("no key", b"{}\n"),
        ("half a question", b"{\"question\": \"a\"}\n"),
        ("not JSON at once", b"{\"text\": \"a\"\n"),
        ("not JSON later", b"{\"text\": \"a\"}\n\n{\"text\": \"b\n"),
        ("another shape later", b"{\"text\": \"a\"}\n{\"tokens\": [1]}\n"),
        (
            "a key missing later",
            b"{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"a\"}\n",
        ),
        ("text of another type", b"{\"text\": \"a\"}\n{\"text\": 1}\n"),
        ("negative token", b"{\"tokens\": [1]}\n{\"tokens\": [-1]}\n"),
        ("fractional token", b"{\"tokens\": [1]}\n{\"tokens\": [1.5]}\n"),
        ("too large token", b"{\"tokens\": [4294967296]}\n"),
        ("two objects", b"{\"text\": \"a\"} {\"text\": \"b\"}\n"),
        ("not UTF-8", b"first\nsecond \xff\n"),
        ("not UTF-8 in JSON", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n"),
    ];
    insta::assert_snapshot!(all(&cases));
}

#[test]
fn numbers_that_json_does_not_have_are_named() {
    let cases: [(&str, &[u8]); 7] = [
        ("text", b"{\"text\": \"a\"}\n{\"id\": Infinity, \"text\": NaN}\n"),
        ("token", b"{\"tokens\": [1]}\n{\"tokens\": [1, NaN]}\n"),
        ("content", b"{\"messages\": [{\"role\": \"user\", \"content\": -Infinity}]}\n"),
        ("half a word", b"{\"text\": \"a\", \"b\": NaNa}\n"),
        ("two words", b"{\"text\": \"a\", \"b\": NaN NaN}\n"),
        ("no key", b"{\"text\": \"a\", NaN: 1}\n"),
        ("after a number", b"{\"text\": \"a\", \"b\": 1NaN}\n"),
    ];
    insta::assert_snapshot!(all(&cases));
}

#[test]
fn arrays_say_where() {
    let cases: [(&str, &[u8]); 11] = [
        ("empty", b"[]"),
        ("cut in an item", b"[{\"text\": \"a\"},\n {\"text\": \"b"),
        ("cut after an item", b"[{\"text\": \"a\"},\n {\"text\": \"b\"}"),
        ("cut after a comma", b"[{\"text\": \"a\"},\n"),
        ("more behind", b"[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n{}"),
        ("no comma", b"[{\"text\": \"a\"},\n {\"text\": \"b\"} {\"text\": \"c\"}]"),
        ("a comma too many", b"[{\"text\": \"a\"},\n]"),
        ("mixed", b"[{\"text\": \"a\"},\n \"b\"]"),
        ("a type", b"[{\"text\": \"a\"},\n {\"text\":\n 1}]"),
        ("numbers", b"[1,\n 2]"),
        ("a line break in a string", b"[{\"text\": \"a\"},\n {\"text\": \"b\n\"}]"),
    ];
    insta::assert_snapshot!(all(&cases));
}

#[test]
fn json_of_another_shape_shows_its_keys() {
    let cases: [(&str, &[u8]); 5] = [
        ("rows in an object", b"{\"version\": \"1\", \"data\": [{\"text\": \"a\"}]}"),
        ("the same, indented", b"{\n \"version\": \"1\",\n \"data\": [{\"text\": \"a\"}]\n}\n"),
        ("preferences", b"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}"),
        ("columns", b"{\"text\": [\"a\", \"b\"]}"),
        ("one conversation", b"[\n {\"role\": \"user\", \"content\": \"a\"}\n]"),
    ];
    insta::assert_snapshot!(all(&cases));
}

#[test]
fn a_cut_or_damaged_archive_is_called_that() {
    let lines: String = (0..9999).map(|i| format!("{{\"text\": \"{i} {}\"}}\n", i * i)).collect();
    for (name, whole) in [("gzip", gzip(&lines)), ("zstd", zstd(&lines))] {
        let begins = |message: &str, what: &str| {
            assert!(
                message.starts_with(&format!("FILE: the {name} archive is {what}")),
                "{message}"
            );
        };
        begins(&error(&whole[..whole.len() - 20]), "cut short");
        begins(&error(&whole[..whole.len() - 2]), "cut short");
        begins(&error(&whole[..12]), "cut short: ");
        for at in [20, whole.len() / 2, whole.len() - 10] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let message = error(damaged);
            assert!(message.starts_with("FILE"), "{at}: {message}");
        }
        begins(&error([&whole[..], b"and more than a header has"].concat()), "damaged");
    }
}

#[test]
fn a_missing_file_is_named() {
    let message = TextFile::open("no/such/file").unwrap_err().to_string();
    assert!(message.starts_with("cannot read no/such/file: "), "{message}");
    let message = TextFile::open(std::env::temp_dir()).unwrap_err().to_string();
    assert!(message.contains("got a pipe, a device or a folder; "), "{message}");
}

/// The error of reading questions from these bytes; empty if there is none.
fn questions(bytes: &str) -> String {
    let (_folder, path) = file(bytes);
    let read = TextFile::open_with(&path, &ReadOptions::questions()).and_then(|f| records(&f));
    let said = read.map_or_else(|error| error.to_string(), |_| String::new());
    said.replace(&path.display().to_string(), "FILE")
}

#[test]
fn questions_alone() {
    let good = "{\"question\": \"a\", \"answer\": \"b\", \"text\": \"c\", \"messages\": []}";
    assert_eq!(questions(good), "");
    assert_eq!(questions(&format!("\u{feff}[{good}]")), "");
    let cases =
        ["{\"question\": \"a\"}", &format!("{good}\n{{\"answer\": \"a\"}}"), "prose", "[1]"];
    let said: Vec<String> = cases.iter().map(|text| questions(text)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn another_key_has_the_text() {
    let mut options = ReadOptions::default();
    options.text_key = Some("content".to_owned());
    let (_folder, path) = file("{\"content\": \"a\", \"text\": \"b\"}\n{\"text\": \"c\"}\n");
    let file = TextFile::open_with(&path, &options).unwrap();
    assert_eq!(file.format().to_string(), "JSON lines of `content`");
    let message = records(&file).unwrap_err().to_string();
    assert!(
        message.ends_with(
            "line 2: expected `{\"content\": \"...\"}` as on the first line, got a record of `text`"
        ),
        "{message}"
    );
}
