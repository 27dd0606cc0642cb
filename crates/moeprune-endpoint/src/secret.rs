//! The key, where a server repeats it.

use serde_json::Value;

/// A shorter key is no secret, and its letters are those of any text.
const SHORTEST: usize = 4;

/// What stands for a key.
const HIDDEN: &str = "…";

/// What a server sent, without the key that was sent there: as it is, or as JSON may write it.
pub(crate) fn hidden(bytes: Vec<u8>, key: Option<&str>) -> Vec<u8> {
    let Some(key) = key.filter(|key| key.len() >= SHORTEST) else { return bytes };
    let bytes = replaced(bytes, key);
    if !bytes.contains(&b'\\') {
        return bytes;
    }
    // An escape may stand for one of the key's letters.
    let Ok(mut json) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
    if hide_in(&mut json, key) { json.to_string().into_bytes() } else { bytes }
}

fn replaced(bytes: Vec<u8>, key: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), &bytes[..]);
    while let Some(at) = rest.windows(key.len()).position(|found| found == key.as_bytes()) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(HIDDEN.as_bytes());
        rest = &rest[at + key.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Whether there was one.
fn hide_in(json: &mut Value, key: &str) -> bool {
    match json {
        Value::String(text) if text.contains(key) => {
            *text = text.replace(key, HIDDEN);
            true
        }
        Value::Array(all) => {
            all.iter_mut().filter_map(|one| hide_in(one, key).then_some(())).count() > 0
        }
        Value::Object(all) => {
            let found =
                all.values_mut().filter_map(|one| hide_in(one, key).then_some(())).count() > 0;
            let names: Vec<String> =
                all.keys().filter(|name| name.contains(key)).cloned().collect();
            for name in &names {
                if let Some(value) = all.remove(name) {
                    all.insert(name.replace(key, HIDDEN), value);
                }
            }
            found || !names.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_out_however_they_are_written() {
        let check = |text: &str, key: Option<&str>, expected: &str| {
            let found = hidden(text.as_bytes().to_vec(), key);
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        };
        check("no sk-1 and sk-1", Some("sk-1"), "no … and …");
        check("sk-1sk-1", Some("sk-1"), "……");
        check(r#"{"a":["s\u006b-1","\n"]}"#, Some("sk-1"), r#"{"a":["…","\n"]}"#);
        check(r#"["s\u006b-1", "sk-1\n", "sk\u002d1"]"#, Some("sk-1"), r#"["…","…\n","…"]"#);
        check(r#"{"s\u006b-1":1}"#, Some("sk-1"), r#"{"…":1}"#);
        check("abc", Some("abc"), "abc");
        check("sk-1", None, "sk-1");
        check("", Some("sk-1"), "");
        check("\\ not JSON", Some("sk-1"), "\\ not JSON");
    }
}
