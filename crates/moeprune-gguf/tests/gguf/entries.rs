//! Reading and changing keys.

use moeprune_gguf::{Entries, Value, ValueType};

use crate::made::{Made, check_refused};

const KINDS: [ValueType; 8] = [
    ValueType::U8,
    ValueType::I8,
    ValueType::U16,
    ValueType::I16,
    ValueType::U32,
    ValueType::I32,
    ValueType::U64,
    ValueType::I64,
];

/// A key of every type.
fn all() -> Entries {
    let mut entries = Entries::new();
    let values = [
        ("u8", Value::U8(8)),
        ("i8", Value::I8(-8)),
        ("u16", Value::U16(16)),
        ("i16", Value::I16(16)),
        ("u32", Value::U32(32)),
        ("i32", Value::I32(32)),
        ("f32", Value::F32(0.5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("é".as_bytes())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(0.25)),
        ("latin", Value::String(b"\xe9")),
    ];
    for (key, value) in values {
        entries.push(key, value).unwrap();
        assert_eq!(entries.get(key), Some(value));
    }
    let texts = ["a", ""].map(|text| Value::String(text.as_bytes()));
    entries.push_array("texts", ValueType::String, &texts).unwrap();
    entries.push_array("numbers", ValueType::I32, &[Value::I32(3), Value::I32(4)]).unwrap();
    entries
}

#[test]
fn typed_reads() {
    let entries = all();
    assert_eq!(entries.number("u8").unwrap(), Some(8));
    assert_eq!(entries.number("u64").unwrap(), Some(u64::MAX));
    assert_eq!(entries.number("none").unwrap(), None);
    assert_eq!(entries.float("f32").unwrap(), Some(0.5));
    assert_eq!(entries.float("i8").unwrap(), Some(-8.0));
    assert_eq!(entries.flag("bool").unwrap(), Some(true));
    assert_eq!(entries.text("string").unwrap(), Some("é"));
    assert_eq!(entries.texts("texts").unwrap(), Some(vec!["a", ""]));
    assert_eq!(entries.numbers("numbers").unwrap(), Some(vec![3, 4]));
    check_refused(
        entries.number("i8"),
        "key `i8`: is I8(-8), expected an integer that is not negative",
    );
    check_refused(entries.number("f32"), "is F32(0.5), expected an integer");
    check_refused(entries.flag("u8"), "is U8(8), expected a boolean");
    check_refused(entries.text("latin"), "is the string \"\u{fffd}\", expected a string in UTF-8");
    check_refused(entries.texts("numbers"), "is an array of 2 I32, expected an array of strings");
    check_refused(
        entries.numbers("texts"),
        "is an array of 2 String, expected an array of integers",
    );
}

#[test]
fn an_integer_keeps_its_type_and_place() {
    for kind in KINDS {
        let mut entries = Entries::new();
        let zero = Value::U8(0);
        entries.push("before", zero).unwrap();
        let id = KINDS.iter().position(|other| *other == kind).unwrap();
        let value =
            [zero, Value::I8(0), Value::U16(0), Value::I16(0), Value::U32(0), Value::I32(0)];
        let value = value.get(id).copied().unwrap_or(match kind {
            ValueType::U64 => Value::U64(0),
            _ => Value::I64(0),
        });
        entries.push("n", value).unwrap();
        entries.push("behind", zero).unwrap();
        entries.set("n", 100).unwrap();
        assert_eq!(entries.get("n").unwrap().kind(), kind);
        assert_eq!(entries.number("n").unwrap(), Some(100));
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["before", "n", "behind"]);
    }
}

#[test]
fn changes_that_are_refused() {
    let mut entries = all();
    let before = entries.clone();
    check_refused(entries.set("u8", 256), "key `u8`: is U8, which has no 256");
    check_refused(entries.set("i32", 1 << 31), "is I32, which has no 2147483648");
    check_refused(entries.set("f32", 1), "is F32 and not an integer, so 1 cannot be set");
    check_refused(entries.set("bool", 1), "is Bool and not an integer");
    check_refused(entries.set("none", 1), "key `none`: is not there, so it cannot be set");
    check_refused(entries.set_numbers("u8", &[1]), "is U8, expected an array");
    check_refused(entries.set_numbers("texts", &[1]), "is String and not an integer");
    check_refused(entries.push("u8", Value::U8(0)), "key `u8`: is there already");
    let mixed = [Value::U8(0), Value::I8(0)];
    check_refused(
        entries.push_array("a", ValueType::U8, &mixed),
        "value 1 is I8 in an array of U8",
    );
    assert_eq!(entries, before);
    entries.set_numbers("numbers", &[1, 2, 3]).unwrap();
    assert_eq!(entries.numbers("numbers").unwrap(), Some(vec![1, 2, 3]));
    assert!(entries.remove("numbers") && !entries.remove("numbers"));
}

#[test]
fn arrays_of_arrays_are_carried() {
    let made = Made::new(0, 1).text("a").u32(9).u32(9).u64(2);
    let made = made.u32(8).u64(1).text("x").u32(0).u64(2).bytes(&[5, 6]).data(0);
    let header = made.read().unwrap();
    assert_eq!(header.to_bytes(), made.0);
    let Some(Value::Array(outer)) = header.entries().get("a") else { panic!("{header:?}") };
    let inner: Vec<Vec<Value<'_>>> = outer
        .iter()
        .map(|value| match value {
            Value::Array(inner) => inner.iter().collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(inner, [vec![Value::String(b"x")], vec![Value::U8(5), Value::U8(6)]]);
}
