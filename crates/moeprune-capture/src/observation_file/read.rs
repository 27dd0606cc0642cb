//! Reading an observation, and believing nothing in it unchecked.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use moeprune_core::{
    CorpusTag, InputMoments, LayerObservation, LinearId, Observation, RoutingSums,
    observation::{Shape, Statistic, Statistics, ValuesMut},
};
use moeprune_files::StandIn;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::{
    FORMAT, VERSION,
    check::{Flaw, check},
    name::{Group, Name, Of},
};
use crate::Error;

/// The safetensors format's own bound on a header.
const LONGEST_HEADER: u64 = 100_000_000;
/// Each takes some memory even when the file has nothing about it.
const MOST_LAYERS: usize = 1 << 12;

/// Reads an observation from a file in the [format](self::super) of this version.
///
/// What is allocated is bounded by the file's length, with any header.
///
/// # Errors
/// If the file cannot be read, is of another format or version, or anything in it contradicts the
/// format; the error names the file and the tensor.
pub fn read_observation(path: impl AsRef<Path>) -> Result<Observation, Error> {
    let path = path.as_ref();
    read(path).map_err(|problem| {
        let path = path.to_owned();
        match problem {
            Problem::Io(source) => Error::Read { path, source },
            Problem::File(reason) => Error::ObservationFile { path, reason },
            Problem::Tensor(Flaw { tensor, expected, got }) => {
                Error::ObservationTensor { path, tensor, expected, got }
            }
        }
    })
}

enum Problem {
    Io(io::Error),
    File(String),
    Tensor(Flaw),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn file(reason: impl Into<String>) -> Problem {
    Problem::File(reason.into())
}

fn flaw(tensor: impl ToString, expected: impl ToString, got: impl ToString) -> Problem {
    Problem::Tensor(Flaw {
        tensor: tensor.to_string(),
        expected: expected.to_string(),
        got: got.to_string(),
    })
}

fn read(path: &Path) -> Result<Observation, Problem> {
    let mut opened = File::open(path)?;
    let (header, data) = read_header(&mut opened)?;
    let metadata = Metadata::of(&header)?;
    let tensors = locate(&header, data, metadata.layers)?;
    let mut tensors = Tensors { file: opened, tensors };
    let mut layers = Vec::with_capacity(metadata.layers);
    for layer in 0..metadata.layers {
        let routing = tensors.routing(layer)?;
        let inputs = tensors.inputs(layer)?;
        layers.push(LayerObservation { routing, inputs });
    }
    let observation = Observation {
        model_fingerprint: metadata.model_fingerprint,
        corpora: metadata.corpora,
        layers,
    };
    check(&observation).map_err(Problem::Tensor)?;
    Ok(observation)
}

/// Where the tensors' bytes are in the file.
struct Data {
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
struct Header {
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

struct Metadata {
    model_fingerprint: String,
    corpora: Vec<CorpusTag>,
    layers: usize,
}

impl Metadata {
    fn of(header: &Header) -> Result<Self, Problem> {
        let entry = |key: &str| {
            let missing = || file(format!("its metadata has no `{key}`"));
            header.metadata.get(key).ok_or_else(missing)
        };
        let format = header.metadata.get("format").map_or("", String::as_str);
        if format != FORMAT {
            return Err(file(format!(
                "it is a safetensors file of something else: its metadata says format \
                 `{format:.40}`, expected `{FORMAT}`"
            )));
        }
        let version = entry("version")?;
        if version != VERSION {
            return Err(file(format!(
                "it is of version {version:.20} and this program reads version {VERSION}; observe \
                 the model again, or use the program that wrote it"
            )));
        }
        let corpora = serde_json::from_str(entry("corpora")?)
            .map_err(|error| file(format!("its `corpora` are broken: {error}")))?;
        let layers = entry("layers")?;
        let layers = match layers.parse::<usize>() {
            Ok(number) if number <= MOST_LAYERS && number.to_string() == *layers => number,
            _ => return Err(file(format!("it cannot have `{layers:.40}` layers"))),
        };
        Ok(Self { model_fingerprint: entry("model_fingerprint")?.clone(), corpora, layers })
    }
}

/// A tensor whose bytes are inside the file and as many as its shape needs.
struct Located {
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
            let got = format!("bytes {begin} to {end}");
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

struct Tensors {
    file: File,
    tensors: BTreeMap<Name, Located>,
}

impl Tensors {
    fn routing(&mut self, layer: usize) -> Result<Option<RoutingSums>, Problem> {
        let group = Group { layer, of: Of::Routing };
        match self.groups(layer).contains(&group) {
            true => self.group(group).map(Some),
            false => Ok(None),
        }
    }

    fn inputs(&mut self, layer: usize) -> Result<BTreeMap<LinearId, InputMoments>, Problem> {
        let mut inputs = BTreeMap::new();
        for group in self.groups(layer) {
            if let Of::Input(site) = group.of {
                inputs.insert(site, self.group(group)?);
            }
        }
        Ok(inputs)
    }

    /// The groups of a layer that some tensor is of, ascending.
    fn groups(&self, layer: usize) -> Vec<Group> {
        let first = Name::first_of(Group { layer, of: Of::Routing });
        let of_layer = self.tensors.range(first..).map(|(name, _)| name.group);
        let mut groups: Vec<Group> = of_layer.take_while(|group| group.layer == layer).collect();
        groups.dedup();
        groups
    }

    /// Every row of a group's table.
    fn group<S: Statistics>(&mut self, group: Group) -> Result<S, Problem> {
        let mut sums = S::default();
        let experts = match S::ROWS.iter().find(|row| row.shape == Shape::PerExpert) {
            Some(row) => self.length(group.name(row))?,
            None => 0,
        };
        for row in S::ROWS {
            let name = group.name(row);
            if row.may_be_missing() && !self.tensors.contains_key(&name) {
                continue;
            }
            let shape = self.shape(name, row, experts)?;
            match row.of_mut(&mut sums) {
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
        }
        Ok(sums)
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
