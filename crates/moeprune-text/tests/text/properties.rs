//! What holds of any records, any text and any bytes.

use moeprune_text::{Content, TextFile};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::made::{file, gzip, records, zstd};

/// A message of a role, with a content that may be anything.
fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["system", "user", "assistant", "tool", "critic"]);
    (role, ".*").prop_map(|(role, content)| json!({"role": role, "content": content}))
}

/// Records of one shape, as JSON.
fn some_records() -> impl Strategy<Value = Vec<Value>> {
    let chat = || vec(message(), 1..4);
    prop_oneof![
        vec(".*".prop_map(|text| json!({"text": text, "n": 1.5e-7})), 1..8),
        vec((".*", ".*").prop_map(|(q, a)| json!({"question": q, "answer": a})), 1..8),
        vec(vec(any::<u32>(), 0..9).prop_map(|ids| json!({"tokens": ids})), 1..8),
        vec(chat().prop_map(|chat| json!({"messages": chat, "tools": [{"name": "f"}]})), 1..5),
        vec(chat().prop_map(|chat| json!({"prompt": "x", "completion": chat})), 1..5),
        vec((".*", ".*").prop_map(|(i, o)| json!({"instruction": i, "output": o})), 1..5),
    ]
}

fn contents(bytes: impl AsRef<[u8]>) -> Vec<Content> {
    let (_folder, path) = file(bytes);
    let file = TextFile::open(path).unwrap();
    records(&file).unwrap().into_iter().map(|record| record.content).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_container_gives_the_same_records(rows in some_records()) {
        let each: Vec<String> = rows.iter().map(Value::to_string).collect();
        let lines = each.join("\n");
        let expected = contents(&lines);
        prop_assert_eq!(expected.len(), rows.len());
        let indented: Vec<String> = rows.iter().map(|row| format!("{row:#}\n")).collect();
        let array = serde_json::to_string_pretty(&rows).unwrap();
        let marked = format!("\u{feff}\n{}\r\n", each.join("\r\n\r\n"));
        for text in [format!("[{}]", each.join(",")), array, indented.concat(), marked] {
            prop_assert_eq!(&contents(&text), &expected, "{}", text);
            prop_assert_eq!(&contents(gzip(&text)), &expected, "gzipped: {}", text);
            prop_assert_eq!(&contents(zstd(&text)), &expected, "packed: {}", text);
        }
    }

    #[test]
    fn pieces_are_the_text(text in "[a-z][^\\x00\n]{0,30}(\n[^\\x00\n]{0,30}){0,5}", times in 1_usize..60_000) {
        let text = format!("{text}\n").repeat(times.min((3 << 20) / text.len()));
        let mut joined = String::new();
        for content in contents(&text) {
            let Content::Piece { text, .. } = content else { panic!("{content:?}") };
            joined += &text;
        }
        prop_assert!(joined == text);
    }

    #[test]
    fn no_bytes_panic(
        start in prop::sample::select(vec![
            "", "{", "[", "{\"text\":", "[{\"messages\":[{", "PAR1", "\u{feff}", "text,id\n", "\"",
        ]),
        bytes in vec(any::<u8>(), 0..200),
        text in "[\\[\\]{}\":,a1 \n\\\\-]{0,60}",
    ) {
        for rest in [bytes, text.into_bytes()] {
            let whole = [start.as_bytes(), &rest].concat();
            for stored in [gzip(&whole), [&b"\x28\xb5\x2f\xfd"[..], &rest].concat(), whole] {
                let (_folder, path) = file(stored);
                if let Ok(file) = TextFile::open(path) {
                    let _ = file.records().map(Iterator::count);
                }
            }
        }
    }
}
