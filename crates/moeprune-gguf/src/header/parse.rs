//! The parts of a header, one after the other.

use moeprune_files::{ReadAt, StandIn};

use super::tensor::MOST_DIMS;
use crate::{
    Entries, Error,
    cursor::{Cursor, Spot},
    entries::Entry,
    value::ValueType,
};

/// Arrays of arrays are followed this deep. ggml takes none.
const DEEPEST: usize = 8;

/// What a header says, before it is held against the file.
pub(super) struct Parsed {
    pub(super) version: u32,
    pub(super) entries: Entries,
    pub(super) tensors: Vec<Listed>,
    /// Bytes without padding.
    pub(super) length: u64,
}

/// A tensor as it is listed.
pub(super) struct Listed {
    pub(super) name: String,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    /// ggml's number.
    pub(super) type_id: u32,
    /// From the beginning of the data.
    pub(super) offset: u64,
}

pub(super) fn parse(file: &dyn ReadAt) -> Result<Parsed, Error> {
    let end = file.len().min(StandIn::BYTES as u64);
    let got = file.read_at(0..end).map_err(|source| Error::Io { start: 0, end, source })?;
    if !got.starts_with(b"GGUF") {
        let stand_in = StandIn::of(&got).map(Error::StandIn);
        return Err(
            stand_in.unwrap_or_else(|| Error::Magic { got: got[..got.len().min(4)].to_vec() })
        );
    }
    let mut cursor = Cursor::new(file);
    cursor.u32(Spot::Start)?;
    let version = cursor.u32(Spot::Start)?;
    check_version(version)?;
    let tensor_count = cursor.u64(Spot::Start)?;
    let entry_count = cursor.u64(Spot::Start)?;
    // A name's length, a type and a value of one byte; a name's length, dimensions, type and offset.
    let least = |count: u64, bytes: u64| count.checked_mul(bytes);
    cursor.expect(least(entry_count, 13), Spot::Entries(entry_count))?;
    cursor.expect(least(tensor_count, 24), Spot::Tensors(tensor_count))?;
    let entries = (0..entry_count).map(|number| entry(&mut cursor, number));
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    if let Some(key) = repeated(entries.iter().map(|entry| entry.key.as_str())) {
        return Err(Error::key(key, "is there twice"));
    }
    let tensors = (0..tensor_count).map(|number| listed(&mut cursor, number));
    let tensors: Vec<Listed> = tensors.collect::<Result<_, _>>()?;
    check_names(tensors.iter().map(|tensor| tensor.name.as_str()))?;
    Ok(Parsed { version, entries: Entries::of(entries), tensors, length: cursor.position() })
}

/// Refuses versions that are not read.
pub(super) fn check_version(got: u32) -> Result<(), Error> {
    match got {
        2 | 3 => Ok(()),
        // Version numbers are small; one whose lower half is empty has its bytes in the other order.
        _ if got != 0 && got.trailing_zeros() >= 16 => {
            Err(Error::BigEndian { got: got.swap_bytes() })
        }
        _ => Err(Error::Version { got }),
    }
}

/// Refuses tensors that share a name.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    repeated(names).map_or(Ok(()), |name| Err(Error::tensor(name, "is there twice")))
}

/// A name that is there more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn entry(cursor: &mut Cursor<'_>, number: u64) -> Result<Entry, Error> {
    let key = name(cursor, Spot::Entry(number))?;
    let kind = value_type(cursor, &key)?;
    let mut bytes = Vec::new();
    copy_value(cursor, kind, Inside { key: &key, depth: 0 }, &mut bytes)?;
    Ok(Entry { key, kind, bytes })
}

fn listed(cursor: &mut Cursor<'_>, number: u64) -> Result<Listed, Error> {
    let name = name(cursor, Spot::Tensor(number))?;
    let spot = Spot::Info(&name);
    let dims = cursor.u32(spot)?;
    if dims as usize > MOST_DIMS {
        let reason = format!("has {dims} dimensions, expected up to {MOST_DIMS}");
        return Err(Error::tensor(&name, reason));
    }
    let mut shape = Vec::with_capacity(dims as usize);
    for _ in 0..dims {
        let dim = cursor.u64(spot)?;
        let too_large = |_| Error::tensor(&name, format!("has a dimension of {dim} elements"));
        shape.push(usize::try_from(dim).map_err(too_large)?);
    }
    shape.reverse();
    let type_id = cursor.u32(spot)?;
    let offset = cursor.u64(spot)?;
    Ok(Listed { name, shape, type_id, offset })
}

fn name(cursor: &mut Cursor<'_>, spot: Spot<'_>) -> Result<String, Error> {
    String::from_utf8(cursor.string(spot)?).map_err(|error| {
        let shown = String::from_utf8_lossy(error.as_bytes()).chars().take(80).collect();
        Error::Name { of: spot.to_string(), shown }
    })
}

/// The value that is being copied.
#[derive(Clone, Copy)]
struct Inside<'a> {
    key: &'a str,
    /// Arrays around it.
    depth: usize,
}

fn value_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, Error> {
    let id = cursor.u32(Spot::Value(key))?;
    ValueType::from_id(id).ok_or_else(|| {
        let reason = format!("is of value type {id}, expected 0 to 12, so its size is not known");
        Error::key(key, reason)
    })
}

/// Appends a value as it is stored.
fn copy_value(
    cursor: &mut Cursor<'_>,
    kind: ValueType,
    inside: Inside<'_>,
    to: &mut Vec<u8>,
) -> Result<(), Error> {
    let spot = Spot::Value(inside.key);
    match kind {
        ValueType::String => {
            let length = cursor.u64(spot)?;
            cursor.expect(Some(length), spot)?;
            to.extend(length.to_le_bytes());
            cursor.copy(length, spot, to)
        }
        ValueType::Array => copy_array(cursor, inside, to),
        fixed => cursor.copy(fixed.least_size() as u64, spot, to),
    }
}

fn copy_array(cursor: &mut Cursor<'_>, inside: Inside<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
    let (key, spot) = (inside.key, Spot::Value(inside.key));
    let kind = value_type(cursor, key)?;
    let count = cursor.u64(spot)?;
    let least = count.checked_mul(kind.least_size() as u64);
    cursor.expect(least, spot)?;
    to.extend(kind.id().to_le_bytes());
    to.extend(count.to_le_bytes());
    if let (Some(_), Some(length)) = (kind.size(), least) {
        return cursor.copy(length, spot, to);
    }
    let depth = inside.depth + 1;
    if depth > DEEPEST {
        return Err(Error::key(key, format!("has arrays in arrays, more than {DEEPEST} deep")));
    }
    (0..count).try_for_each(|_| copy_value(cursor, kind, Inside { key, depth }, to))
}
