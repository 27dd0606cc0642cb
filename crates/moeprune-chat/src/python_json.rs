//! JSON as Python writes it: with NaN and Infinity, which JSON does not have.

/// The text with these numbers as null, where it has any outside of strings.
pub(crate) fn without_nan(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut clean, mut at, mut in_text) = (Vec::with_capacity(bytes.len()), 0, false);
    while let Some(&byte) = bytes.get(at) {
        let word = WORDS.iter().find(|word| !in_text && bytes[at..].starts_with(word));
        if let Some(word) = word {
            clean.extend_from_slice(b"null");
            at += word.len();
            continue;
        }
        in_text ^= byte == b'"';
        clean.push(byte);
        at += 1;
        if in_text && byte == b'\\' {
            clean.extend(bytes.get(at));
            at += 1;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_of_strings() {
        let check = |text: &str, expected: &str| {
            assert_eq!(String::from_utf8(without_nan(text.as_bytes())).unwrap(), expected);
        };
        check(r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a": null, "b": [null, null]}"#);
        check(
            r#"{"NaN": "NaN \" Infinity \\", "b": NaN}"#,
            r#"{"NaN": "NaN \" Infinity \\", "b": null}"#,
        );
        check(r#"{"a": 1}\"#, r#"{"a": 1}\"#);
        check(r#""\"#, r#""\"#);
    }
}
