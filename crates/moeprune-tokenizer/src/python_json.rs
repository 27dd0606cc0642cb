//! JSON as Python writes it: with a byte order mark now and then, and with NaN and Infinity.

use serde::de::DeserializeOwned;

use crate::Error;

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The content of a file without a byte order mark.
///
/// # Errors
/// If it is a pointer of git-lfs.
pub(crate) fn content<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    if bytes.starts_with(LFS) {
        return Err(Error::file(file, "is a git-lfs pointer; fetch the file (git lfs pull)"));
    }
    Ok(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))
}

/// Parses a file; numbers that JSON does not have are null.
pub(crate) fn parse<T: DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let bytes = moeprune_json::replaced(content(file, bytes)?, |_| "null");
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(file, format!("cannot be parsed: {e}; download it again")))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::parse;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let parsed: Value = parse("a.json", text.as_bytes()).unwrap();
        assert_eq!(parsed.to_string(), expected);
    }

    #[test]
    fn numbers_that_json_has_not() {
        check(r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a":null,"b":[null,null]}"#);
        check(
            r#"{"NaN": "In\"finity NaN \\", "c": NaN}"#,
            r#"{"NaN":"In\"finity NaN \\","c":null}"#,
        );
        check("\u{feff}[1]", "[1]");
    }

    #[test]
    fn what_is_no_json() {
        let said = |bytes: &[u8]| parse::<Value>("a.json", bytes).unwrap_err().to_string();
        assert!(
            said(b"version https://git-lfs.github.com/spec/v1\noid").contains("git-lfs pointer")
        );
        for bytes in [&b"\"\\"[..], b"", b"Na", b"{", b"\xff"] {
            assert!(said(bytes).starts_with("a.json cannot be parsed"), "{bytes:?}");
        }
    }
}
