//! A safetensors file of sums: its header, and its tensors where they are needed.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use moeprune_core::observation::{Shape, Statistic, Statistics, ValuesMut, WideSum};
use moeprune_files::StandIn;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use sha2::{Digest, Sha256};

use super::{
    FORMAT, PART_FORMAT, VERSION,
    check::Flaw,
    name::{Group, Name, Of},
};
use crate::Error;

/// The safetensors format's own bound on a header.
const LONGEST_HEADER: u64 = 100_000_000;
/// Each takes some memory even when the file has nothing about it.
const MOST_LAYERS: usize = 1 << 12;

pub(super) enum Problem {
    Io(io::Error),
    File(String),
    Tensor(Flaw),
}

impl Problem {
    /// The error that names the file.
    pub(super) fn of(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Io(source) => Error::Read { path, source },
            Self::File(reason) => Error::ObservationFile { path, reason },
            Self::Tensor(Flaw { tensor, expected, got }) => {
                Error::ObservationTensor { path, tensor, expected, got }
            }
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn file(reason: impl Into<String>) -> Problem {
    Problem::File(reason.into())
}

pub(super) fn flaw(tensor: impl ToString, expected: impl ToString, got: impl ToString) -> Problem {
    Problem::Tensor(Flaw {
        tensor: tensor.to_string(),
        expected: expected.to_string(),
        got: got.to_string(),
    })
}

/// Where the tensors' bytes are in the file.
pub(super) struct Data {
    start: u64,
    length: u64,
}

fn read_header(opened: &mut File) -> Result<(Header, Data), Problem> {
    let size = opened.metadata()?.len();
    let mut beginning = Vec::with_capacity(StandIn::BYTES);
    (&*opened).take(StandIn::BYTES as u64).read_to_end(&mut beginning)?;
    if let Some(stand_in) = StandIn::pointer(&beginning) {
        return Err(file(format!("it {stand_in}")));
    }
    opened.rewind()?;
    let mut length = [0; 8];
    if size < 8 {
        return Err(file(format!("it has {size} bytes, fewer than a safetensors file")));
    }
    opened.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let rest = size - 8;
    if length > LONGEST_HEADER.min(rest) {
        return Err(file(format!(
            "its header would have {length} bytes where {rest} are left; it is cut short or not a \
             safetensors file"
        )));
    }
    let mut header = vec![0; length as usize];
    opened.read_exact(&mut header)?;
    if header.first() != Some(&b'{') {
        return Err(file("its header is not a JSON object; it is not a safetensors file"));
    }
    let header = serde_json::from_slice(&header)
        .map_err(|error| file(format!("its header is broken: {error}")))?;
    Ok((header, Data { start: 8 + length, length: rest - length }))
}

/// The header's entries as they stand, doubles and all.
pub(super) struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Info)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut metadata, mut tensors) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let Once(members) = map.next_value()?;
                        if metadata.replace(members).is_some() {
                            return Err(A::Error::custom("`__metadata__` appears twice"));
                        }
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// An object of strings in which no key is repeated: readers differ in which of two they take.
struct Once(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format!("`{key}` appears twice")));
                    }
                    entries.insert(key, map.next_value()?);
                }
                Ok(Once(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// What the header says of the whole file.
pub(super) struct Metadata {
    entries: BTreeMap<String, String>,
    pub(super) model_fingerprint: String,
    pub(super) layers: usize,
}

impl Metadata {
    fn of(entries: BTreeMap<String, String>, expected: &str) -> Result<Self, Problem> {
        let found = entries.get("format").map_or("", String::as_str);
        if found == PART_FORMAT && expected == FORMAT {
            let part = entries.get("part").map_or("?", String::as_str);
            return Err(file(format!(
                "it is part {part:.40} of an observation; add all parts up first: moeprune merge PART... -o FILE"
            )));
        }
        if found == FORMAT && expected == PART_FORMAT {
            return Err(file("it is a whole observation, not a part of one".to_owned()));
        }
        if found != expected {
            return Err(file(format!(
                "it is a safetensors file of something else: its metadata says format \
                 `{found:.40}`, expected `{expected}`"
            )));
        }
        let mut metadata = Self { entries, model_fingerprint: String::new(), layers: 0 };
        let version = metadata.entry("version")?;
        if version != VERSION {
            return Err(file(format!(
                "it is of version {version:.20} and this program reads version {VERSION}; observe \
                 the model again, or use the program that wrote it"
            )));
        }
        let layers = metadata.entry("layers")?;
        metadata.layers = match layers.parse::<usize>() {
            Ok(number) if number <= MOST_LAYERS && number.to_string() == *layers => number,
            _ => return Err(file(format!("it cannot have `{layers:.40}` layers"))),
        };
        metadata.model_fingerprint = metadata.entry("model_fingerprint")?.to_owned();
        Ok(metadata)
    }

    /// What the header says under a key.
    pub(super) fn entry(&self, key: &str) -> Result<&str, Problem> {
        let missing = || file(format!("its metadata has no `{key}`"));
        self.entries.get(key).map(String::as_str).ok_or_else(missing)
    }

    /// The same, which is JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T, Problem> {
        serde_json::from_str(self.entry(key)?)
            .map_err(|error| file(format!("its `{key}` are broken: {error}")))
    }
}

/// A tensor whose bytes are inside the file and as many as its shape needs.
pub(super) struct Located {
    dtype: String,
    shape: Vec<u64>,
    at: u64,
    bytes: u64,
}

fn locate(header: &Header, data: Data, layers: usize) -> Result<BTreeMap<Name, Located>, Problem> {
    let mut located = BTreeMap::new();
    let mut ranges = Vec::with_capacity(header.tensors.len());
    for (text, Info { dtype, shape, data_offsets: (begin, end) }) in &header.tensors {
        let (begin, end) = (*begin, *end);
        let name = Name::parse(text).filter(|name| name.group.layer < layers);
        let name = name.ok_or_else(|| file(format!("it has an unknown tensor `{text:.80}`")))?;
        if begin > end || end > data.length {
            let got = format!("bytes {begin} to {end}: the file is cut short or broken");
            return Err(flaw(name, format!("bytes within the {} of the file", data.length), got));
        }
        let asked = shape.iter().try_fold(8_u64, |bytes, &dim| bytes.checked_mul(dim));
        if asked != Some(end - begin) {
            let got = format!("{} bytes", end - begin);
            return Err(flaw(name, format!("eight bytes per value of shape {shape:?}"), got));
        }
        ranges.push((begin, end));
        let (dtype, shape, at) = (dtype.clone(), shape.clone(), data.start + begin);
        if located.insert(name, Located { dtype, shape, at, bytes: end - begin }).is_some() {
            return Err(flaw(name, "each name once", "it twice"));
        }
    }
    ranges.sort_unstable();
    let mut covered = 0;
    for (begin, end) in ranges {
        if begin != covered {
            return Err(file(format!("its tensors overlap or leave a hole at byte {begin}")));
        }
        covered = end;
    }
    if covered != data.length {
        let left = data.length - covered;
        return Err(file(format!("{left} bytes follow its last tensor")));
    }
    Ok(located)
}

pub(super) struct Tensors {
    file: File,
    /// Where the first tensor begins.
    start: u64,
    tensors: BTreeMap<Name, Located>,
}

impl Tensors {
    /// Opens a file of sums of one of this crate's formats.
    pub(super) fn open(path: &Path, format: &str) -> Result<(Metadata, Self), Problem> {
        let mut opened = File::open(path)?;
        let (header, data) = read_header(&mut opened)?;
        let metadata = Metadata::of(header.metadata.clone(), format)?;
        let start = data.start;
        let tensors = locate(&header, data, metadata.layers)?;
        Ok((metadata, Self { file: opened, start, tensors }))
    }

    /// SHA-256 of all tensors, in hexadecimal.
    pub(super) fn sha256(&mut self) -> Result<String, Problem> {
        self.file.seek(SeekFrom::Start(self.start))?;
        let mut hash = Sha256::new();
        io::copy(&mut self.file, &mut hash)?;
        Ok(format!("{:x}", hash.finalize()))
    }

    /// The groups of a layer that some tensor is of, ascending.
    pub(super) fn groups(&self, layer: usize) -> Vec<Group> {
        let first = Name::first_of(Group { layer, of: Of::Routing });
        let of_layer = self.tensors.range(first..).map(|(name, _)| name.group);
        let mut groups: Vec<Group> = of_layer.take_while(|group| group.layer == layer).collect();
        groups.dedup();
        groups
    }

    /// Every row of a group's table.
    pub(super) fn group<S: Statistics>(&mut self, group: Group) -> Result<S, Problem> {
        let mut sums = S::default();
        let experts = self.rows_of_experts::<S>(group)?;
        S::ROWS.iter().try_for_each(|row| self.row(group, row, &mut sums, experts))?;
        Ok(sums)
    }

    /// The number of experts that a group is about.
    pub(super) fn rows_of_experts<S: Statistics>(&self, group: Group) -> Result<u64, Problem> {
        match S::ROWS.iter().find(|row| row.shape == Shape::PerExpert) {
            Some(row) => self.length(group.name(row)),
            None => Ok(0),
        }
    }

    /// One row of a group's table; a row that may be missing stays as it is if it is.
    pub(super) fn row<S: Statistics>(
        &mut self,
        group: Group,
        row: &Statistic<S>,
        sums: &mut S,
        experts: u64,
    ) -> Result<(), Problem> {
        let name = group.name(row);
        if row.may_be_missing() && !self.tensors.contains_key(&name) {
            return Ok(());
        }
        let shape = self.shape(name, row, experts)?;
        match row.of_mut(sums) {
            ValuesMut::Size(size) => {
                let count = self.count(name)?;
                *size = usize::try_from(count)
                    .map_err(|_| flaw(name, "a number that fits in memory", count))?;
            }
            ValuesMut::Count(count) => *count = self.count(name)?,
            ValuesMut::Counts(counts) => {
                *counts = self.values(name, "U64", &shape, u64::from_le_bytes)?;
            }
            ValuesMut::Floats(values) => {
                *values = self.values(name, "F64", &shape, f64::from_le_bytes)?;
            }
        }
        Ok(())
    }

    /// A row of wide sums, whose words are its innermost dimension; nothing of one that may be missing and is.
    pub(super) fn wide_row<S: Statistics>(
        &mut self,
        group: Group,
        row: &Statistic<S>,
        experts: u64,
    ) -> Result<Vec<WideSum>, Problem> {
        let name = group.name(row);
        if row.may_be_missing() && !self.tensors.contains_key(&name) {
            return Ok(Vec::new());
        }
        let words = WideSum::LIMBS as u64;
        let length = |at: usize| {
            self.get(name).map(|found| found.shape.get(at).copied().unwrap_or_default())
        };
        let shape = match row.shape {
            Shape::Scalar => vec![words],
            Shape::PerExpert => vec![experts, words],
            Shape::PerPair => vec![experts, experts, words],
            Shape::PerExpertFeature => vec![experts, length(1)?, words],
            Shape::PerInputFeature => vec![length(0)?, words],
        };
        let limbs = self.values(name, "U64", &shape, u64::from_le_bytes)?;
        Ok(limbs.as_chunks().0.iter().map(|&limbs| WideSum::from_limbs(limbs)).collect())
    }

    /// The shape a tensor must have; of a number of features, any.
    fn shape<S>(&self, name: Name, row: &Statistic<S>, n: u64) -> Result<Vec<u64>, Problem> {
        Ok(match row.shape {
            Shape::Scalar => Vec::new(),
            Shape::PerExpert => vec![n],
            Shape::PerPair => vec![n, n],
            Shape::PerExpertFeature => {
                vec![n, self.get(name)?.shape.get(1).copied().unwrap_or_default()]
            }
            Shape::PerInputFeature => vec![self.length(name)?],
        })
    }

    fn get(&self, name: Name) -> Result<&Located, Problem> {
        let missing = || flaw(name, "a tensor, as others of its group are there", "none");
        self.tensors.get(&name).ok_or_else(missing)
    }

    fn length(&self, name: Name) -> Result<u64, Problem> {
        match self.get(name)?.shape[..] {
            [length] => Ok(length),
            ref shape => Err(flaw(name, "one dimension", format!("shape {shape:?}"))),
        }
    }

    fn count(&mut self, name: Name) -> Result<u64, Problem> {
        let values = self.values(name, "U64", &[], u64::from_le_bytes)?;
        Ok(values.first().copied().unwrap_or_default())
    }

    fn values<T>(
        &mut self,
        name: Name,
        dtype: &str,
        shape: &[u64],
        value: impl Fn([u8; 8]) -> T,
    ) -> Result<Vec<T>, Problem> {
        let &Located { dtype: ref found, shape: ref has, at, bytes: length } = self.get(name)?;
        if (found.as_str(), has.as_slice()) != (dtype, shape) {
            return Err(flaw(
                name,
                format!("{dtype} of shape {shape:?}"),
                format!("{found:.20} of shape {has:?}"),
            ));
        }
        self.file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| value(bytes)).collect())
    }
}
