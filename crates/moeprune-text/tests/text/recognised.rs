//! Formats that are recognised by their content.

use moeprune_text::{Compression, Content, TextFile};

use crate::made::{file, gzip, named, records, shown, zstd};

/// The format, then a line per record: from the file as it is, with a byte order mark, gzipped, and gzipped in two members.
fn check(text: &str, expected: &str) {
    assert_eq!(shown(text), expected, "{text}");
    let marked = format!("\u{feff}{text}");
    assert_eq!(shown(&marked), expected, "marked: {text}");
    let (format, lines) = expected.split_once('\n').unwrap_or((expected, ""));
    let half = text.len() / 2;
    let halves = [&text.as_bytes()[..half], &text.as_bytes()[half..]];
    for packed in [gzip(text), gzip(&marked), halves.map(gzip).concat()] {
        assert_eq!(shown(packed), format!("{format}, gzipped\n{lines}"), "packed: {text}");
    }
    let [first, second] = halves.map(zstd);
    let skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
    for packed in [zstd(text), zstd(&marked), [skipped, &first[..], skipped, &second].concat()] {
        assert_eq!(shown(packed), format!("{format}, packed by zstd\n{lines}"), "packed: {text}");
    }
}

#[test]
fn plain_text() {
    let plain = |text: &str| check(text, &format!("plain text\nline 1: piece {text:?}, last"));
    plain("To be\nor not\n");
    plain("{\\bf not JSON}");
    plain("[1] a note");
    plain("[1, 2] say so");
    plain("[ ] buy milk\n[x] sleep\n");
    plain("[[Category:Moths]]\nMoths fly.");
    plain("[\"Go,\" she said]");
    plain("[\"sic\"] in the source");
    plain("['tis nobler]");
    plain("naïve ☃");
    plain("text, then commas, and more");
    plain("\"quoted\" at first");
    plain("<p>a fragment</p>");
    plain("null");
}

#[test]
fn broken_arrays_of_strings_are_no_prose() {
    let refused = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, text).unwrap();
        let read =
            TextFile::open(&path).and_then(|file| file.records()?.collect::<Result<Vec<_>, _>>());
        let error = read.expect_err(text).to_string();
        assert!(error.contains("text"), "{error}");
    };
    refused("[\"a\", \"b\"] trailing");
    refused("[\"a\" \"b\"]");
    refused("[\"cut within the first");
    refused("[\"a\\x\", \"b\"]");
    refused("['a', 'b']");
    refused("[\"a\"]\n[\"b\"]");
    refused("[{\"content\": \"a\"}, {\"content\": \"b\"}]");
}

#[test]
fn lines_of_text() {
    check("{\"text\": \"a\"}", "JSON lines of `text`\nline 1: \"a\"");
    check(
        "\n{\"text\":\"a\",\"url\":\"x\",\"timestamp\":1}\r\n \n{ \"text\":\"b\\n\\u2603\"}\n",
        "JSON lines of `text`\nline 2: \"a\"\nline 4: \"b\\n☃\"",
    );
}

#[test]
fn files_that_were_joined() {
    check(
        "{\"text\":\"a\"}\n\u{feff}{\"text\":\"b\"}\n",
        "JSON lines of `text`\nline 1: \"a\"\nline 2: \"b\"",
    );
}

#[test]
fn lines_of_questions_and_tokens() {
    check(
        "{\"question\":\"1+1?\",\"answer\":\"two\\n#### 2\"}\n",
        "JSON lines of `question` and `answer`\nline 1: question \"1+1?\" \"two\\n#### 2\"",
    );
    check(
        "{\"tokens\":[1,2,4294967295]}\n{\"tokens\":[]}\n",
        "JSON lines of `tokens`\nline 1: [1, 2, 4294967295]\nline 2: []",
    );
    check("[1,2]\n[3]\n", "JSON lines of `tokens`\nline 1: [1, 2]\nline 2: [3]");
    check("[1,2]", "JSON lines of `tokens`\nline 1: [1, 2]");
}

#[test]
fn tokens_that_are_a_count_are_ignored() {
    check("{\"text\":\"a\",\"tokens\":3}", "JSON lines of `text`\nline 1: \"a\"");
    check("{\"text\":\"a\",\"tokens\":[3]}", "JSON lines of `tokens`\nline 1: [3]");
    check("{\"text\":\"a\",\"tokens\":[\"a\"]}", "JSON lines of `text`\nline 1: \"a\"");
}

#[test]
fn arrays() {
    check(
        "[\n  {\"text\": \"a\"},\n  {\"text\": \"[,]}\\\"\"}\n]\n",
        "a JSON array of `text`\nitem 1: \"a\"\nitem 2: \"[,]}\\\"\"",
    );
    check("[\"a\",\"b\\n\"]", "a JSON array of strings\nitem 1: \"a\"\nitem 2: \"b\\n\"");
    check("[[1,2],[3]]", "a JSON array of `tokens`\nitem 1: [1, 2]\nitem 2: [3]");
    check(
        "[[{\"role\":\"user\",\"content\":\"a\"}]]",
        "a JSON array of `messages`\nitem 1: {\"role\":\"user\",\"content\":\"a\"}",
    );
    check(
        "[{\"role\":\"user\",\"content\":\"a\"}]\n[{\"role\":\"user\",\"content\":\"b\"}]\n",
        "JSON lines of `messages`\nline 1: {\"role\":\"user\",\"content\":\"a\"}\n\
         line 2: {\"role\":\"user\",\"content\":\"b\"}",
    );
}

#[test]
fn objects_over_several_lines() {
    check(
        "{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n",
        "JSON objects of `text`\nitem 1: \"a\"\nitem 2: \"b\"",
    );
    check("{\n  \"text\": \"a\"\n}", "JSON objects of `text`\nitem 1: \"a\"");
}

#[test]
fn numbers_that_json_does_not_have() {
    check(
        "{\"text\": \"NaN\", \"score\": NaN, \"p\": [-Infinity, Infinity,NaN]}\n{\"score\":NaN,\"text\":\"b\"}",
        "JSON lines of `text`\nline 1: \"NaN\"\nline 2: \"b\"",
    );
    check("[{\"a\": NaN, \"text\": \"a\"}]", "a JSON array of `text`\nitem 1: \"a\"");
    check(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"score\":NaN}]}",
        "JSON lines of `messages`\nline 1: {\"role\":\"user\",\"content\":\"a\"}",
    );
}

#[test]
fn a_name_says_nothing() {
    let (_folder, path) = named("plain.json.gz", "words");
    assert_eq!(TextFile::open(path).unwrap().format().to_string(), "plain text");
}

#[test]
fn pieces_are_cut_between_characters() {
    for (unit, count) in [("☃", 700_000), ("a\n", 1 << 20), ("é", 1 << 19), ("🦋b", 500_000)] {
        let text = unit.repeat(count);
        let (_folder, path) = file(gzip(&text));
        let file = TextFile::open(path).unwrap();
        assert_eq!(file.format().compression, Some(Compression::Gzip));
        let pieces = records(&file).unwrap();
        let mut joined = String::new();
        for (n, record) in pieces.iter().enumerate() {
            let Content::Piece { text, last } = &record.content else { panic!("{record:?}") };
            assert!(text.len() <= 1 << 20);
            assert_eq!(*last, n + 1 == pieces.len());
            joined += text;
        }
        assert_eq!(joined, text);
    }
}

#[test]
fn the_hash_is_of_the_bytes_on_disk() {
    let (_folder, path) = file("{\"tokens\": [1, 2]}\n{\"tokens\": [3, 4]}\n");
    let hash = "08fb95129adef733ee4f602d4eae28d41904fface9c8b8fc0ae3fbd68315c7c9";
    assert_eq!(TextFile::open(path).unwrap().sha256().unwrap(), hash);
}
