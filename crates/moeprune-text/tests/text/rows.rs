//! Items of data sets: objects of any keys, read whole.

use std::{fs, path::Path};

use moeprune_text::{Content, Error, ReadOptions, Shape, TextFile};
use serde_json::{Value, json};

use crate::made::{named, records};

fn read(path: &Path) -> Result<Vec<Value>, Error> {
    let read = TextFile::open_with(path, &ReadOptions::rows())?;
    assert_eq!(read.format().shape, Shape::Row);
    let value = |content| match content {
        Content::Row(row) => Value::Object(row),
        other => panic!("{other:?}"),
    };
    Ok(records(&read)?.into_iter().map(|record| value(record.content)).collect())
}

fn check(name: &str, bytes: &[u8], expected: Value) {
    let (_folder, path) = named(name, bytes);
    assert_eq!(Value::Array(read(&path).unwrap()), expected, "{name}");
}

#[test]
fn in_any_container() {
    let expected = json!([{"q": "a\nb", "c": {"text": ["x", "y"], "n": [1, 2.5]}, "l": null}, {"q": "b", "more": true}]);
    let rows = expected.as_array().unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    check("rows.jsonl", lines.as_bytes(), expected.clone());
    check("rows.json", expected.to_string().as_bytes(), expected.clone());
    check("rows", serde_json::to_string_pretty(&expected).unwrap().as_bytes(), expected.clone());
    let indented: String = rows.iter().map(|row| format!("{row:#}\n")).collect();
    check("rows.json", indented.as_bytes(), expected);
    check(
        "rows.csv",
        b"goal,sol1,label\n\"a, b\",c,0\n",
        json!([{"goal": "a, b", "sol1": "c", "label": "0"}]),
    );
    check("rows.tsv", b"a\tb\n1\t2\n", json!([{"a": "1", "b": "2"}]));
    // Keys that otherwise say what a record is are keys as others.
    check(
        "rows.jsonl",
        b"{\"text\": 3, \"tokens\": [\"a\"], \"messages\": 1}\n",
        json!([{"text": 3, "tokens": ["a"], "messages": 1}]),
    );
    check("rows.jsonl", b"{}\n{\"a\": 1}\n", json!([{}, {"a": 1}]));
}

#[test]
fn parquet_with_columns_that_are_no_text() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/text/files");
    for name in ["data_set", "pictures"] {
        let rows = read(&files.join(name).with_extension("parquet")).unwrap();
        let expected = fs::read_to_string(files.join(name).with_extension("jsonl")).unwrap();
        let expected: Vec<Value> =
            expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows, expected, "{name}");
    }
}

#[test]
fn what_holds_no_rows() {
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let (_folder, path) = named(name, bytes);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("a.txt", b"Once upon a time.", "expected records, such as JSON lines or Parquet");
    check("a.jsonl", b"\"a\"\n\"b\"\n", "plain text");
    check("a.json", b"[1, 2]", "a JSON object");
    check("a.json", b"[\"a\"]", "a JSON object");
    check("a.jsonl", b"{\"a\": 1}\n[1]\n", "a JSON object");
    check("a.jsonl", b"{\"a\": 1}\n{\"a\": NaN}\n", "NaN");
    check("a.jsonl", b"{\"a\": 1}\n{\"a\": \n", "line 2");
    check("a.jsonl", b"", "nothing");
}
