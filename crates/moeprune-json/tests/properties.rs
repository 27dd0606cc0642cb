//! What holds of any text.

use moeprune_json::{Special, replaced, specials};
use proptest::{collection::vec, prelude::*};

/// JSON as Python writes it, and the same with null in the place of what JSON does not have.
fn python_json() -> impl Strategy<Value = (String, String)> {
    let same = |text: String| (text.clone(), text);
    let leaf = prop_oneof![
        prop_oneof![Just("NaN"), Just("Infinity"), Just("-Infinity")]
            .prop_map(|word| (word.to_owned(), "null".to_owned())),
        r#"(NaN|"|\\\\|Infinity|[a-z,:\]\[-]){0,6}"#
            .prop_map(move |text| same(serde_json::Value::String(text).to_string())),
        any::<i32>().prop_map(move |number| same(number.to_string())),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let joined = |items: Vec<(String, String)>, form: fn(usize, &str) -> String| {
            let join = |texts: Vec<String>| texts.join(", ");
            let texts = items.iter().enumerate();
            let (python, json): (Vec<_>, Vec<_>) =
                texts.map(|(i, (python, json))| (form(i, python), form(i, json))).unzip();
            (join(python), join(json))
        };
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(move |items| {
                let (python, json) = joined(items, |_, item| item.to_owned());
                (format!("[{python}]"), format!("[{json}]"))
            }),
            vec(inner, 0..4).prop_map(move |items| {
                let (python, json) = joined(items, |i, item| format!("\"NaN {i}\":{item}"));
                (format!("{{{python}}}"), format!("{{ {json}}}"))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_python_writes_becomes_json((python, json) in python_json()) {
        let found = replaced(python.as_bytes(), |_| "null");
        let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
        prop_assert_eq!(found, serde_json::from_str::<serde_json::Value>(&json).unwrap());
    }

    #[test]
    fn any_bytes_have_words_where_they_are_found(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(&b"NaInfinty-,:[\"\\ "[..])], 0..80),
    ) {
        let mut end = 0;
        for (at, special) in specials(&bytes) {
            prop_assert!(at >= end);
            prop_assert!(bytes[at..].starts_with(special.word().as_bytes()));
            end = at + special.word().len();
        }
        prop_assert_eq!(&*replaced(&bytes, Special::word), &*bytes);
    }

    #[test]
    fn json_stays_as_it_is(text in "(NaN|Infinity|[ -~]){0,20}") {
        let json = serde_json::json!({ (&text): [&text, 1.5, null] }).to_string();
        prop_assert_eq!(specials(json.as_bytes()).count(), 0);
    }
}
