//! The header of a safetensors file: read strictly, written the same for the same tensors.
//!
//! A file is a length (u64, little-endian), that many bytes of JSON, and the data. What an entry of
//! the header looks like, and that the tensors cover the data without holes or overlaps, is the
//! business of the `safetensors` crate. Added here is what it lets pass: a header that begins with
//! anything but `{`, keys that are repeated, and fields that it does not know. Its reader also wants the whole file in one
//! slice, which only a file in memory is.
//!
//! Offsets need not be multiples of an element's size: bytes here are never cast in place.

use std::{collections::HashMap, ops::Range};

use moeprune_core::Dtype;
use moeprune_files::StandIn;
use safetensors::{
    SafeTensorError,
    tensor::{Metadata, TensorInfo},
};
use serde_json::value::RawValue;

use super::dtype::{from_format, to_format};
use crate::{
    Error,
    container::{PlannedTensor, WeightFile},
    json::Members,
};

/// The limit that other readers of the format keep to.
const MAX_HEADER: u64 = 100_000_000;

const LENGTH: u64 = 8;

/// A tensor as a header announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// From the beginning of the data.
    pub(super) range: Range<u64>,
}

/// Reads the header at the beginning of a file, and nothing after it: where the data starts, and
/// the tensors in the order of their data.
pub(super) fn read_header(file: &WeightFile) -> Result<(u64, Vec<HeaderTensor>), Error> {
    let bad = |reason| Error::Shard { path: file.path().to_owned(), reason };
    let file_bytes = file.len();
    // Looked for only where there is no header, so that no data of a model is read.
    let check_stand_in = || {
        let beginning = file.read(0..file_bytes.min(StandIn::BYTES as u64))?;
        StandIn::of(&beginning).map_or(Ok(()), |stand_in| Err(bad(stand_in.to_string())))
    };
    if file_bytes < LENGTH {
        check_stand_in()?;
        return Err(bad(format!(
            "is {file_bytes} bytes long, too short for a safetensors file; download it again"
        )));
    }
    let mut length = [0; LENGTH as usize];
    length.copy_from_slice(&file.read(0..LENGTH)?);
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        check_stand_in()?;
        return Err(bad(format!(
            "says its header is {length} bytes long, more than the {MAX_HEADER} allowed; not a \
             safetensors file, or damaged"
        )));
    }
    let data_start = LENGTH + length;
    if data_start > file_bytes {
        return Err(bad(format!(
            "is truncated: its header ends at byte {data_start}, as it says, but the file is \
             {file_bytes} bytes long; download it again"
        )));
    }
    let json = file.read(LENGTH..data_start)?;
    let tensors = parse_header(&json, file_bytes - data_start).map_err(bad)?;
    Ok((data_start, tensors))
}

/// Parses the JSON of a header before `data_bytes` of data. Tensors come in the order of their
/// data.
fn parse_header(json: &[u8], data_bytes: u64) -> Result<Vec<HeaderTensor>, String> {
    if json.first() != Some(&b'{') {
        return Err("header does not begin with `{`; not a safetensors file, or damaged".into());
    }
    let text = std::str::from_utf8(json).map_err(|e| format!("header is not UTF-8: {e}"))?;
    let Members(members): Members<&RawValue> =
        serde_json::from_str(text).map_err(|e| format!("header is not a JSON object: {e}"))?;
    let mut tensors = Vec::with_capacity(members.len());
    for (name, value) in members {
        if name == "__metadata__" {
            if value.get() == "null" {
                continue;
            }
            serde_json::from_str::<Members<String>>(value.get())
                .map_err(|e| format!("header: `__metadata__` must map strings to strings: {e}"))?;
            continue;
        }
        let info = tensor_info(value).map_err(|e| format!("header: tensor `{name}`: {e}"))?;
        tensors.push((name, info));
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(None, tensors.clone()).map_err(|e| explain(&e, &tensors))?;
    let covered = metadata.data_len() as u64;
    if data_bytes < covered {
        return Err(format!(
            "is truncated: its header says that {covered} bytes of tensors follow, {data_bytes} are \
             there; download it again"
        ));
    }
    if data_bytes > covered {
        return Err(format!(
            "has {} bytes after its last tensor; damaged, download it again",
            data_bytes - covered
        ));
    }
    tensors.into_iter().map(|(name, info)| header_tensor(name, info)).collect()
}

/// Fields that the format does not know are refused: what they say may change what the data means.
fn tensor_info(value: &RawValue) -> Result<TensorInfo, String> {
    let Members(fields): Members<&RawValue> =
        serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    let known = |name: &str| matches!(name, "dtype" | "shape" | "data_offsets");
    if let Some((name, _)) = fields.iter().find(|(name, _)| !known(name)) {
        return Err(format!("has the field `{name}`, which this version does not know"));
    }
    serde_json::from_str(value.get()).map_err(|e| e.to_string())
}

fn header_tensor(name: String, info: TensorInfo) -> Result<HeaderTensor, String> {
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
    let Some(dtype) = from_format(dtype) else {
        return Err(format!(
            "header: tensor `{name}` has the type {dtype}, which this version cannot read"
        ));
    };
    Ok(HeaderTensor { name, dtype, shape, range: start as u64..end as u64 })
}

/// What is wrong with which of the tensors, given in the order of their data. The crate's errors
/// name the tensor only if it begins in the wrong place, and no numbers.
fn explain(error: &SafeTensorError, tensors: &[(String, TensorInfo)]) -> String {
    let bytes = |info: &TensorInfo| byte_len(info.dtype.bitsize(), &info.shape);
    let is_wrong = |(name, info): &(String, TensorInfo)| match error {
        SafeTensorError::InvalidOffset(of) => name == of,
        _ => {
            let (start, end) = info.data_offsets;
            bytes(info).is_none_or(|bytes| Some(bytes) != end.checked_sub(start))
        }
    };
    let Some(at) = tensors.iter().position(is_wrong) else { return format!("header: {error}") };
    let (name, info) = &tensors[at];
    let (start, end) = info.data_offsets;
    let (before, covered) = match at.checked_sub(1).map(|before| &tensors[before]) {
        None => ("the beginning".to_owned(), 0),
        Some((name, info)) => (format!("tensor `{name}`"), info.data_offsets.1),
    };
    let reason = match (error, bytes(info)) {
        (SafeTensorError::InvalidOffset(_), _) if start < covered => {
            format!("overlaps {before}, which ends at {covered}")
        }
        (SafeTensorError::InvalidOffset(_), _) if start > covered => {
            format!("leaves a hole after {before}, which ends at {covered}")
        }
        (SafeTensorError::InvalidOffset(_), _) => "ends before it begins".to_owned(),
        (_, None) => "has no whole number of bytes".to_owned(),
        (_, Some(bytes)) => format!("takes {bytes} bytes"),
    };
    format!(
        "header: tensor `{name}` of type {}, shape {:?} and range {start}..{end} {reason}",
        info.dtype, info.shape
    )
}

/// Bytes of a tensor with elements of `bits` bits; `None` if they cannot be counted or end within
/// a byte.
fn byte_len(bits: usize, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))?;
    let bits = elements.checked_mul(bits)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The bytes before the data of a file with these tensors, one after the other in this order.
///
/// Padded with spaces to a multiple of 8, as the format advises, so that data of any type can be
/// aligned. Equal tensors give equal bytes, which is why there is but one key of metadata: the
/// crate keeps them in a hash map.
///
/// Names must differ, and the sizes must have a sum. The error says what is wrong with which
/// tensor.
pub(super) fn header_bytes(tensors: &[PlannedTensor]) -> Result<Vec<u8>, String> {
    let mut start = 0;
    let mut entries = Vec::with_capacity(tensors.len());
    for PlannedTensor { name, dtype, shape } in tensors {
        let Some(bytes) = dtype.bytes_of_shape(shape) else {
            return Err(format!("`{name}`: {dtype} {shape:?} has no whole number of bytes"));
        };
        let dtype = to_format(*dtype).map_err(|e| format!("`{name}`: {e}"))?;
        let data_offsets = (start, start + bytes);
        entries.push((name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets }));
        start += bytes;
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), entries).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that is accepted here, the format's own implementation accepts and reads the same.
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
