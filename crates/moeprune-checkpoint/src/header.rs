//! The header of a safetensors file: read strictly, written the same for the same tensors.
//!
//! A file is a length (u64, little-endian), that many bytes of JSON, and the data. The header must
//! begin with `{`, name each tensor once, and its ranges must cover the data without holes or
//! overlaps. Offsets need not be multiples of an element's size: bytes here are never cast in
//! place.

use std::{fs::File, io::Read, ops::Range, path::Path};

use moeprune_core::Dtype;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, PlannedTensor, json::Members};

/// The limit that other readers of the format keep to.
const MAX_HEADER: u64 = 100_000_000;

const LENGTH: u64 = 8;

/// A tensor as a header announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// From the beginning of the data.
    pub(crate) range: Range<u64>,
}

/// Reads the header at the beginning of an open file, and nothing after it: where the data starts,
/// and the tensors in the order of their data.
pub(crate) fn read_header(
    file: &mut File,
    file_bytes: u64,
    path: &Path,
) -> Result<(u64, Vec<HeaderTensor>), Error> {
    let bad = |reason| Error::Shard { path: path.to_owned(), reason };
    if file_bytes < LENGTH {
        return Err(bad(format!(
            "is {file_bytes} bytes long, too short for a safetensors file; download it again"
        )));
    }
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length).map_err(Error::io("read", path))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(bad(format!(
            "says its header is {length} bytes long, more than the {MAX_HEADER} allowed; not a \
             safetensors file, or damaged"
        )));
    }
    let data_start = LENGTH + length;
    if data_start > file_bytes {
        return Err(bad(format!(
            "says its header is {length} bytes long, but the file is {file_bytes} bytes; \
             truncated, download it again"
        )));
    }
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json).map_err(Error::io("read the header of", path))?;
    let tensors = parse_header(&json, file_bytes - data_start).map_err(bad)?;
    Ok((data_start, tensors))
}

/// Parses the JSON of a header before `data_bytes` of data. Tensors come in the order of their
/// data.
pub(crate) fn parse_header(json: &[u8], data_bytes: u64) -> Result<Vec<HeaderTensor>, String> {
    if json.first() != Some(&b'{') {
        return Err("header does not begin with `{`; not a safetensors file, or damaged".into());
    }
    let text = std::str::from_utf8(json).map_err(|e| format!("header is not UTF-8: {e}"))?;
    let Members(members): Members<&RawValue> =
        serde_json::from_str(text).map_err(|e| format!("header is not a JSON object: {e}"))?;
    let mut tensors = Vec::with_capacity(members.len());
    for (name, value) in members {
        if name == "__metadata__" {
            serde_json::from_str::<Members<String>>(value.get())
                .map_err(|e| format!("header: `__metadata__` must map strings to strings: {e}"))?;
            continue;
        }
        tensors.push(parse_tensor(name, value.get())?);
    }
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    check_cover(&tensors, data_bytes)?;
    Ok(tensors)
}

/// The bytes before the data of a file with these tensors, one after the other in this order.
///
/// Padded with spaces to a multiple of 8, as the format advises, so that data of any type can be
/// aligned. Equal tensors give equal bytes.
pub(crate) fn header_bytes(tensors: &[PlannedTensor]) -> Vec<u8> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for PlannedTensor { name, dtype, shape } in tensors {
        let end = start + byte_len(*dtype, shape).expect("planned tensors have a size");
        let (name, shape) = (quoted(name), serde_json::Value::from(shape.clone()));
        json.push_str(&format!(
            r#",{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#
        ));
        start = end;
    }
    json.push('}');
    while json.len() % 8 != 0 {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

/// Bytes of a tensor; `None` if they cannot be counted or end within a byte.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64))?;
    let bits = elements.checked_mul(dtype.bits() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

#[derive(Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn parse_tensor(name: String, json: &str) -> Result<HeaderTensor, String> {
    let info: TensorInfo =
        serde_json::from_str(json).map_err(|e| format!("header: tensor `{name}`: {e}"))?;
    let Some(dtype) = Dtype::ALL.into_iter().find(|d| d.to_string() == info.dtype) else {
        return Err(format!("header: tensor `{name}` has the unknown type `{}`", info.dtype));
    };
    let (start, end) = info.data_offsets;
    let Some(bytes) = byte_len(dtype, &info.shape) else {
        return Err(format!(
            "header: tensor `{name}` of type {dtype} and shape {:?} has no whole number of bytes",
            info.shape
        ));
    };
    if end.checked_sub(start) != Some(bytes) {
        return Err(format!(
            "header: tensor `{name}` of type {dtype} and shape {:?} takes {bytes} bytes, but its \
             range is {start}..{end}",
            info.shape
        ));
    }
    Ok(HeaderTensor { name, dtype, shape: info.shape, range: start..end })
}

fn check_cover(tensors: &[HeaderTensor], data_bytes: u64) -> Result<(), String> {
    let mut covered = 0;
    let mut before = None;
    for HeaderTensor { name, range, .. } in tensors {
        if range.start != covered {
            let what = if range.start < covered { "overlaps" } else { "leaves a hole after" };
            let before =
                before.map_or_else(|| "the beginning".to_owned(), |b| format!("tensor `{b}`"));
            return Err(format!(
                "header: tensor `{name}` begins at {} and {what} {before}, which ends at \
                 {covered}",
                range.start
            ));
        }
        covered = range.end;
        before = Some(name);
    }
    match data_bytes {
        d if d < covered => Err(format!(
            "is truncated: its tensors take {covered} bytes, {d} are there; download it again"
        )),
        d if d > covered => Err(format!(
            "has {} bytes after its last tensor; damaged, download it again",
            d - covered
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whatever is accepted here, the format's own implementation accepts and reads the same.
    fn agrees_with_the_crate(json: &[u8], data_bytes: usize) {
        let Ok(tensors) = parse_header(json, data_bytes as u64) else { return };
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json);
        file.extend(std::iter::repeat_n(0, data_bytes));
        let theirs = safetensors::SafeTensors::deserialize(&file).expect("accepted by the crate");
        assert_eq!(theirs.len(), tensors.len());
        for tensor in tensors {
            let view = theirs.tensor(&tensor.name).expect("is there");
            assert_eq!(format!("{:?}", view.dtype()), tensor.dtype.to_string());
            assert_eq!(view.shape(), tensor.shape);
            assert_eq!(view.data().len() as u64, tensor.range.end - tensor.range.start);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(json: Vec<u8>, data_bytes in 0..64_usize) {
            agrees_with_the_crate(&json, data_bytes);
        }

        #[test]
        fn nearly_right_headers_never_panic(
            tensors in prop::collection::vec(
                ("[ab]{1,2}", prop::sample::select(vec!["U8", "BF16", "F32", "F4", "X"]),
                 prop::collection::vec(0..4_usize, 0..3), 0..20_u64, 0..20_u64),
                0..4,
            ),
            data_bytes in 0..40_usize,
            damage in prop::option::of((0..100_usize, any::<u8>())),
        ) {
            let members: Vec<String> = tensors.iter().map(|(name, dtype, shape, start, len)| {
                let end = start + len;
                format!(
                    r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
                )
            }).collect();
            let mut json = format!("{{{}}}", members.join(",")).into_bytes();
            if let Some((at, byte)) = damage {
                let at = at % json.len();
                json[at] = byte;
            }
            agrees_with_the_crate(&json, data_bytes);
        }
    }
}
