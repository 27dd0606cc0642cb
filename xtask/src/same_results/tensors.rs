//! The tensors and the metadata of a safetensors file, held to another's.
//!
//! Files are read here and not with the workspace's reader, which is among what is judged.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use super::{difference::Difference, json};

/// A file of a few megabytes, taken apart.
struct Tensors<'a> {
    metadata: Map<String, Value>,
    /// Names and what the header says of each.
    header: Map<String, Value>,
    data: &'a [u8],
}

impl<'a> Tensors<'a> {
    fn parse(file: &'a [u8]) -> Result<Self> {
        let (length, rest) = file.split_first_chunk::<8>().context("no length of a header")?;
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        ensure!(length <= rest.len(), "the header ends after the file");
        let (header, data) = rest.split_at(length);
        let mut header: Map<String, Value> =
            serde_json::from_slice(header).context("the header is no JSON")?;
        let metadata = match header.remove("__metadata__") {
            Some(Value::Object(metadata)) => metadata,
            Some(other) => anyhow::bail!("metadata are {other}"),
            None => Map::new(),
        };
        Ok(Self { metadata, header, data })
    }

    /// Element type, shape and bytes of a tensor.
    fn tensor(&self, name: &str) -> Result<Option<(String, &'a [u8])>> {
        let Some(entry) = self.header.get(name) else { return Ok(None) };
        let offset = |i: usize| -> Result<usize> {
            let offset = entry["data_offsets"][i].as_u64();
            let offset = offset.with_context(|| format!("{name} has no offsets"))?;
            Ok(usize::try_from(offset)?)
        };
        let bytes = self.data.get(offset(0)?..offset(1)?);
        let bytes = bytes.with_context(|| format!("{name} is outside the file"))?;
        let dtype = entry["dtype"].as_str().with_context(|| format!("{name} has no type"))?;
        Ok(Some((format!("{dtype} {}", entry["shape"]), bytes)))
    }
}

/// Which tensors and metadata of `expected` are missing in `got` or differ there. Both may be added to. `file`
/// is the file's name, for what may differ in its metadata.
pub(super) fn differences(file: &str, expected: &[u8], got: &[u8]) -> Result<Vec<Difference>> {
    let expected = Tensors::parse(expected).context("expected")?;
    let got = Tensors::parse(got).context("got")?;
    let mut found = metadata_differences(file, &expected.metadata, &got.metadata);
    for name in expected.header.keys() {
        let Some((form, bytes)) = expected.tensor(name)? else { continue };
        let Some((other_form, other_bytes)) = got.tensor(name)? else {
            found.push(Difference::new(name, &form, "no such tensor"));
            continue;
        };
        if form != other_form {
            found.push(Difference::new(name, &form, &other_form));
        } else if let Some(difference) = byte_difference(bytes, other_bytes) {
            found.push(difference.below(name));
        }
    }
    Ok(found)
}

/// Metadata are strings; those that are JSON lists or objects are compared as such.
fn metadata_differences(
    file: &str,
    expected: &Map<String, Value>,
    got: &Map<String, Value>,
) -> Vec<Difference> {
    let opened = |map: &Map<String, Value>| {
        let open = |value: &Value| {
            let parsed: Option<Value> = value.as_str().and_then(|s| serde_json::from_str(s).ok());
            parsed.filter(|p| p.is_array() || p.is_object()).unwrap_or_else(|| value.clone())
        };
        Value::Object(map.iter().map(|(key, value)| (key.clone(), open(value))).collect())
    };
    let found = json::differences(file, &opened(expected), &opened(got));
    found.into_iter().map(|difference| difference.below("metadata")).collect()
}

/// The first byte that differs.
pub(super) fn byte_difference(expected: &[u8], got: &[u8]) -> Option<Difference> {
    if expected.len() != got.len() {
        let [a, b] = [expected, got].map(|bytes| format!("{} bytes", bytes.len()));
        return Some(Difference::new("length", a, b));
    }
    let at = expected.iter().zip(got).position(|(a, b)| a != b)?;
    Some(Difference::new(format!("byte {at}"), expected[at], got[at]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "observation.safetensors";

    /// A file of one-byte numbers.
    fn file(metadata: Value, tensors: &[(&str, &[u8])]) -> Vec<u8> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
        let mut data = Vec::new();
        for (name, bytes) in tensors {
            let offsets = [data.len(), data.len() + bytes.len()];
            let entry = json!({ "dtype": "U8", "shape": [bytes.len()], "data_offsets": offsets });
            header.insert((*name).to_owned(), entry);
            data.extend_from_slice(bytes);
        }
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes()[..], &header[..], &data[..]].concat()
    }

    #[test]
    fn tensors_and_metadata_may_be_added_but_not_changed_or_removed() {
        let corpora = r#"[{"name":"a","seed":0}]"#;
        let metadata = json!({ "model_fingerprint": "x", "corpora": corpora });
        let old = file(metadata.clone(), &[("a", &[1, 2]), ("b", &[3])]);
        let check = |new: Vec<u8>, expected: &[&str]| {
            let found = differences(FILE, &old, &new).unwrap();
            let places: Vec<String> = found.into_iter().map(|d| d.at).collect();
            assert_eq!(places, expected);
        };
        check(old.clone(), &[]);
        // Another order, a tensor more, a fingerprint of another form, a key more in a list.
        let more = json!({
            "corpora": r#"[{"name":"a","seed":0,"new":1}]"#,
            "model_fingerprint": "y",
            "new": "z",
        });
        check(file(more, &[("c", &[9]), ("b", &[3]), ("a", &[1, 2])]), &[]);
        check(file(metadata.clone(), &[("a", &[1, 2])]), &["b"]);
        check(file(metadata.clone(), &[("a", &[1, 7]), ("b", &[3])]), &["a: byte 1"]);
        check(file(metadata, &[("a", &[1, 2, 2]), ("b", &[3])]), &["a"]);
        let other = json!({ "corpora": r#"[{"name":"b","seed":0}]"# });
        check(
            file(other, &[("a", &[1, 2]), ("b", &[3])]),
            &["metadata: model_fingerprint", "metadata: corpora.0.name"],
        );
    }

    #[test]
    fn bad_files_are_errors() {
        let good = file(json!({}), &[("a", &[1])]);
        assert!(differences(FILE, &good, &good[..4]).is_err());
        assert!(differences(FILE, &good, &good[..good.len() - 1]).is_err());
        assert!(differences(FILE, &good, &[&99u64.to_le_bytes()[..], b"{}"].concat()).is_err());
    }

    #[test]
    fn the_first_changed_byte_is_named() {
        assert_eq!(byte_difference(&[1, 2], &[1, 2]), None);
        assert_eq!(byte_difference(&[1, 2], &[1, 3]), Some(Difference::new("byte 1", 2, 3)));
        assert!(byte_difference(&[1, 2], &[1]).is_some());
    }
}
