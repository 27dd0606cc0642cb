//! What calibration files are read as.

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use moeprune_capture::{
    CalibrationFormat::{self, PlainText, QuestionLines, TextLines, TokenLines},
    CalibrationSource, Document, SamplingOptions, open_calibration, token_blocks,
};
use tempfile::TempDir;

fn file(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn check(bytes: impl AsRef<[u8]>, format: CalibrationFormat, documents: &[Document]) {
    let bytes = bytes.as_ref();
    let halves = [gzip(&bytes[..bytes.len() / 2]), gzip(&bytes[bytes.len() / 2..])].concat();
    for stored in [bytes.to_vec(), gzip(bytes), halves] {
        let (_folder, path) = file(stored);
        let calibration = open_calibration(path).unwrap();
        assert_eq!(calibration.format(), format);
        for _ in 0..2 {
            let read: Result<Vec<_>, _> = calibration.documents().unwrap().collect();
            assert_eq!(read.unwrap(), documents);
        }
    }
}

#[test]
fn formats_are_told_by_content() {
    let text = |line, text: &str| Document::text(text).at_line(line);
    let tokens = |line, ids: &[u32]| Document::tokens(ids).at_line(line);

    check("To be\nor not\n", PlainText, &[text(1, "To be\nor not\n")]);
    check("{\\bf not JSON}", PlainText, &[text(1, "{\\bf not JSON}")]);
    check("[1] a note", PlainText, &[text(1, "[1] a note")]);
    check("naïve ☃", PlainText, &[text(1, "naïve ☃")]);
    check("\u{feff}marked", PlainText, &[text(1, "marked")]);

    check("{\"text\": \"a\"}", TextLines, &[text(1, "a")]);
    check(
        "\n{\"text\":\"a\",\"url\":\"x\",\"timestamp\":1}\r\n \n{ \"text\":\"b\\n\\u2603\"}\n",
        TextLines,
        &[text(2, "a"), text(4, "b\n☃")],
    );
    check("\u{feff}{\"text\":\"a\"}\n", TextLines, &[text(1, "a")]);
    check(
        "{\"question\":\"1+1?\",\"answer\":\"two\\n#### 2\"}\n",
        QuestionLines,
        &[text(1, "Question: 1+1?\nAnswer: two\n#### 2")],
    );
    check(
        "{\"tokens\":[1,2,4294967295]}\n{\"tokens\":[]}\n",
        TokenLines,
        &[tokens(1, &[1, 2, u32::MAX]), tokens(2, &[])],
    );
}

#[test]
fn a_name_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.json.gz");
    fs::write(&path, "words").unwrap();
    assert_eq!(open_calibration(path).unwrap().format(), PlainText);
}

#[test]
fn the_tag_hashes_the_bytes_on_disk() {
    let (_folder, path) = file("{\"tokens\": [1, 2]}\n{\"tokens\": [3, 4]}\n");
    let calibration = open_calibration(&path).unwrap();
    let options = SamplingOptions { samples: 2, sequence_len: 2, seed: 9 };
    let blocks = token_blocks(&calibration, None, 8, &options).unwrap();
    let tag = calibration.tag(&blocks).unwrap();
    insta::assert_json_snapshot!(tag, @r#"
    {
      "name": "calibration",
      "sha256": "08fb95129adef733ee4f602d4eae28d41904fface9c8b8fc0ae3fbd68315c7c9",
      "samples": 2,
      "sequence_len": 2,
      "seed": 0
    }
    "#);
    fs::write(&path, gzip("{\"tokens\": [1, 2]}")).unwrap();
    assert_ne!(calibration.sha256().unwrap(), tag.sha256);
}

/// The error of opening a file or of walking over it, its path left out.
fn error(bytes: impl AsRef<[u8]>) -> String {
    let (_folder, path) = file(bytes);
    let walk = || -> Result<(), moeprune_core::StageError> {
        let calibration = open_calibration(&path)?;
        let mut documents = calibration.documents()?;
        let ended = documents.by_ref().find(Result::is_err);
        assert!(documents.next().is_none());
        ended.map_or(Ok(()), |error| error.map(drop))
    };
    walk().unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
}

#[test]
fn broken_files_say_where() {
    let cases: [(&str, &[u8]); 17] = [
        ("empty", b""),
        ("blank", b" \n\t\n"),
        ("no known key", b"{\"content\": \"a\", \"id\": 3}\n"),
        ("no key", b"{}\n"),
        ("half a question", b"{\"question\": \"a\"}\n"),
        ("not JSON at once", b"{\"text\": \"a\"\n"),
        ("not JSON later", b"{\"text\": \"a\"}\n\n{\"text\": \"b\n"),
        ("another format later", b"{\"text\": \"a\"}\n{\"tokens\": [1]}\n"),
        ("text of another type", b"{\"text\": \"a\"}\n{\"text\": 1}\n"),
        ("negative token", b"{\"tokens\": [1]}\n{\"tokens\": [-1]}\n"),
        ("fractional token", b"{\"tokens\": [1]}\n{\"tokens\": [1.5]}\n"),
        ("too large token", b"{\"tokens\": [4294967296]}\n"),
        ("two objects", b"{\"text\": \"a\"} {\"text\": \"b\"}\n"),
        ("array", b"[\n  {\"text\": \"a\"}\n]\n"),
        ("not UTF-8", b"first\nsecond \xff\n"),
        ("not UTF-8 in JSON", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n"),
        ("Parquet", b"PAR1\x15\x04"),
    ];
    let found: Vec<String> =
        cases.into_iter().map(|(what, bytes)| format!("{what}: {}", error(bytes))).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    empty: FILE: expected plain text or JSON lines, gzipped or not, got nothing; it holds no text
    blank: FILE: expected plain text or JSON lines, gzipped or not, got nothing; it holds no text
    no known key: FILE line 1: expected a JSON object with `text`, with `question` and `answer`, or with `tokens`, got one with `content`, `id`
    no key: FILE line 1: expected a JSON object with `text`, with `question` and `answer`, or with `tokens`, got one with no keys
    half a question: FILE line 1: expected a JSON object with `text`, with `question` and `answer`, or with `tokens`, got one with `question`
    not JSON at once: FILE line 1: expected a JSON object with `text`, with `question` and `answer`, or with `tokens`, got EOF while parsing an object at column 12
    not JSON later: FILE line 3: expected `{"text": "..."}` as on the first line, got EOF while parsing a string at column 11
    another format later: FILE line 2: expected `{"text": "..."}` as on the first line, got missing field `text` at column 15
    text of another type: FILE line 2: expected `{"text": "..."}` as on the first line, got invalid type: integer `1`, expected a string at column 10
    negative token: FILE line 2: expected `{"tokens": [...]}` as on the first line, got invalid value: integer `-1`, expected u32 at column 14
    fractional token: FILE line 2: expected `{"tokens": [...]}` as on the first line, got invalid type: floating point `1.5`, expected u32 at column 15
    too large token: FILE line 1: expected `{"tokens": [...]}` as on the first line, got invalid value: integer `4294967296`, expected u32 at column 22
    two objects: FILE line 1: expected a JSON object with `text`, with `question` and `answer`, or with `tokens`, got trailing characters at column 15
    array: FILE: expected plain text or JSON lines, gzipped or not, got one JSON array; write each of its objects on a line of its own
    not UTF-8: FILE line 2: expected UTF-8 text, got bytes that are not
    not UTF-8 in JSON: FILE line 2: expected `{"text": "..."}` as on the first line, got invalid unicode code point at column 11
    Parquet: FILE: expected plain text or JSON lines, gzipped or not, got a Parquet file; unpack or convert it first
    "#);
}

#[test]
fn a_cut_gzip_says_where() {
    let lines: String = (0..9999).map(|i| format!("{{\"text\": \"{i} {}\"}}\n", i * i)).collect();
    let whole = gzip(&lines);
    let message = error(&whole[..whole.len() - 20]);
    assert!(message.contains("FILE line ") && message.contains("while reading"), "{message}");
    assert_eq!(error(&whole[..12]), "cannot read FILE: incomplete deflate stream");
}

#[test]
fn a_missing_file_is_named() {
    let message = open_calibration("no/such/file").unwrap_err().to_string();
    assert!(message.starts_with("cannot read no/such/file: "), "{message}");
}
