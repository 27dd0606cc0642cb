/*!
Numbers that Python's `json` writes and JSON does not have: `NaN`, `Infinity` and `-Infinity`.

Configs, tokenizers, chat templates and texts come from Python, and have them now and then. A JSON parser refuses them, and
what is to stand for them depends on what is read: nothing, a number that is too large, or a number whose place is kept in
mind. So this crate finds them ([`specials`]), and its callers say what takes their place ([`replaced`]).

```
use moeprune_json::{Special, replaced, specials};

let text = br#"{"rope_theta": Infinity, "note": "Infinity"}"#;
assert_eq!(specials(text).collect::<Vec<_>>(), [(15, Special::Infinity)]);
assert_eq!(&*replaced(text, |_| "null"), br#"{"rope_theta": null, "note": "Infinity"}"#);
```
*/

use std::borrow::Cow;

/// A number that JSON does not have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "what a binary floating-point number can be besides finite"
)]
pub enum Special {
    /// Not a number.
    NaN,
    /// Positive infinity.
    Infinity,
    /// Negative infinity.
    NegativeInfinity,
}

impl Special {
    const ALL: [Self; 3] = [Self::NaN, Self::Infinity, Self::NegativeInfinity];

    /// How Python writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NaN => "NaN",
            Self::Infinity => "Infinity",
            Self::NegativeInfinity => "-Infinity",
        }
    }
}

/// Where in a JSON text such numbers are, by their first bytes, in order: the words outside of strings, where a value may be.
///
/// The text need not be JSON: of any bytes, what is found can be replaced, and whether the rest is JSON is for a parser to
/// say.
pub fn specials(json: &[u8]) -> Specials<'_> {
    Specials { json, at: 0, in_string: false }
}

/// The iterator of [`specials`].
#[derive(Clone, Debug)]
pub struct Specials<'a> {
    json: &'a [u8],
    at: usize,
    in_string: bool,
}

impl Iterator for Specials<'_> {
    type Item = (usize, Special);

    fn next(&mut self) -> Option<(usize, Special)> {
        while let Some(&byte) = self.json.get(self.at) {
            let at = self.at;
            self.at += 1;
            match byte {
                b'\\' if self.in_string => self.at += 1,
                b'"' => self.in_string = !self.in_string,
                b'N' | b'I' | b'-' if !self.in_string => {
                    let found = Special::ALL.into_iter().find(|it| is_value(self.json, at, *it));
                    if let Some(special) = found {
                        self.at = at + special.word().len();
                        return Some((at, special));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether a number is written at byte `at`, by itself and where a value may be.
fn is_value(json: &[u8], at: usize, special: Special) -> bool {
    let Some(after) = json[at..].strip_prefix(special.word().as_bytes()) else { return false };
    let before = json[..at].strip_prefix(BYTE_ORDER_MARK).unwrap_or(&json[..at]);
    matches!(before.trim_ascii_end().last(), None | Some(b':' | b',' | b'['))
        && after.first().is_none_or(|byte| byte.is_ascii_whitespace() || b",]}".contains(byte))
}

/// The text with something else in the place of each such number; the text itself if it has none.
pub fn replaced(json: &[u8], by: impl Fn(Special) -> &'static str) -> Cow<'_, [u8]> {
    let (mut clean, mut copied) = (Vec::new(), 0);
    for (at, special) in specials(json) {
        clean.extend_from_slice(&json[copied..at]);
        clean.extend_from_slice(by(special).as_bytes());
        copied = at + special.word().len();
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    clean.extend_from_slice(&json[copied..]);
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = replaced(text.as_bytes(), |_| "null");
        assert_eq!(str::from_utf8(&found), Ok(expected));
        assert_eq!(matches!(found, Cow::Borrowed(_)), text == expected, "{text}");
    }

    #[test]
    fn numbers_outside_of_strings() {
        check("", "");
        check("NaN", "null");
        check(" -Infinity\n", " null\n");
        check("\u{feff}NaN", "\u{feff}null");
        check(r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a": null, "b": [null, null]}"#);
        check("[NaN,NaN\t,\nNaN]", "[null,null\t,\nnull]");
        check(
            r#"{"NaN": "NaN \" Infinity \\", "ä": NaN}"#,
            r#"{"NaN": "NaN \" Infinity \\", "ä": null}"#,
        );
    }

    #[test]
    fn what_is_none() {
        for text in [
            r#"{"a": 1}\"#,
            r#""\"#,
            r#"{"a": 1 NaN}"#,
            "[NaNs]",
            "[Infinity2]",
            "[--Infinity]",
            "[-NaN]",
            "[- Infinity]",
            "[Inf, nan, -1]",
            "N",
            "[\"NaN",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn places_and_kinds() {
        let found: Vec<_> = specials(b"[NaN, -Infinity,Infinity]").collect();
        let expected = [(1, Special::NaN), (6, Special::NegativeInfinity), (16, Special::Infinity)];
        assert_eq!(found, expected);
        let text = replaced(b"[NaN, -Infinity,Infinity]", Special::word);
        assert_eq!(&*text, b"[NaN, -Infinity,Infinity]");
    }
}
