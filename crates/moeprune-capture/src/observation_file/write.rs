//! Writing an observation.

use std::{
    io::{self, Write},
    path::Path,
};

use moeprune_core::{
    Observation,
    observation::{Statistics, Values, WideSum},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    FORMAT, VERSION,
    check::{Flaw, check},
    name::{Group, Name, Of},
};
use crate::Error;

/// Writes an observation in the [format](self::super) of this version.
///
/// It is written under a hidden name beside `path` and renamed when it is durable, so a file under
/// `path` is always whole. One that was there is replaced. Equal observations give equal bytes.
///
/// # Errors
/// If the observation contradicts itself (its sums were not taken by this crate), or the file
/// cannot be written.
pub fn write_observation(observation: &Observation, path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    check(observation).map_err(|Flaw { tensor, expected, got }| Error::ObservationTensor {
        path: path.to_owned(),
        tensor,
        expected,
        got,
    })?;
    moeprune_files::write_whole(path, |file| write_to(observation, file))
        .map_err(|e| Error::Write { path: path.to_owned(), source: e.into_io() })
}

/// Writes the bytes of the file that [`write_observation`] makes of an observation.
///
/// # Errors
/// If the observation contradicts itself (its sums were not taken by this crate), before anything
/// is written, or `out` fails.
pub fn write_observation_to(observation: &Observation, out: &mut dyn Write) -> io::Result<()> {
    check(observation).map_err(|Flaw { tensor, expected, got }| {
        let problem = format!("tensor {tensor}: expected {expected}, got {got}");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })?;
    write_to(observation, out)
}

/// SHA-256 in hexadecimal of the file that [`write_observation`] makes of an observation.
#[must_use]
pub fn observation_sha256(observation: &Observation) -> String {
    let mut hash = Sha256::new();
    write_to(observation, &mut hash).expect("a hash takes any bytes");
    format!("{:x}", hash.finalize())
}

fn write_to(observation: &Observation, out: &mut dyn Write) -> io::Result<()> {
    let tensors = tensors(observation);
    let entries: Vec<Entry> = tensors.iter().map(Tensor::entry).collect();
    write_header(metadata(observation), &entries, out)?;
    tensors.iter().try_for_each(|tensor| tensor.write(out))
}

/// Writes the header of a file of such tensors, which follow in this order.
pub(super) fn write_header(
    metadata: Value,
    entries: &[Entry],
    out: &mut dyn Write,
) -> io::Result<()> {
    let header = header(metadata, entries);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

/// A tensor that is written.
pub(super) struct Tensor<'a> {
    pub(super) name: Name,
    pub(super) shape: Vec<usize>,
    pub(super) values: Stored<'a>,
}

/// What a header says of a tensor.
pub(super) struct Entry {
    name: Name,
    shape: Vec<usize>,
    dtype: &'static str,
    bytes: usize,
}

impl Tensor<'_> {
    pub(super) fn entry(&self) -> Entry {
        let Self { name, ref shape, values } = *self;
        Entry { name, shape: shape.clone(), dtype: values.dtype(), bytes: values.bytes() }
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.values {
            Stored::Values(values) => write_values(values, out),
            Stored::Wide(sums) => sums.chunks(4096).try_for_each(|chunk| {
                let limbs: Vec<[u8; 8]> =
                    chunk.iter().flat_map(|sum| sum.limbs().map(u64::to_le_bytes)).collect();
                out.write_all(limbs.as_flattened())
            }),
        }
    }
}

/// What it holds.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    Values(Values<'a>),
    Wide(&'a [WideSum]),
}

impl Stored<'_> {
    fn bytes(self) -> usize {
        match self {
            Self::Values(values) => values.len() * 8,
            Self::Wide(sums) => sums.len() * 8 * WideSum::LIMBS,
        }
    }

    fn dtype(self) -> &'static str {
        match self {
            Self::Values(Values::Floats(_)) => "F64",
            Self::Values(_) | Self::Wide(_) => "U64",
        }
    }
}

fn tensors(observation: &Observation) -> Vec<Tensor<'_>> {
    let mut tensors = Vec::new();
    for (layer, seen) in observation.layers.iter().enumerate() {
        if let Some(routing) = &seen.routing {
            push(&mut tensors, Group { layer, of: Of::Routing }, routing);
        }
        for (&site, moments) in &seen.inputs {
            push(&mut tensors, Group { layer, of: Of::Input(site) }, moments);
        }
    }
    tensors
}

fn push<'a, S: Statistics>(tensors: &mut Vec<Tensor<'a>>, group: Group, sums: &'a S) {
    for row in S::ROWS {
        let values = row.of(sums);
        if values.is_empty() && row.may_be_missing() {
            continue;
        }
        let shape = row.shape.dims(sums.experts(), values.len());
        tensors.push(Tensor { name: group.name(row), shape, values: Stored::Values(values) });
    }
}

fn metadata(observation: &Observation) -> Value {
    let corpora: Vec<Value> = observation
        .corpora
        .iter()
        .map(|corpus| {
            let mut tag = json!({
                "name": corpus.name,
                "sha256": corpus.sha256,
                "samples": corpus.samples,
                "sequence_len": corpus.sequence_len,
                "seed": corpus.seed,
            });
            if corpus.repeated != 1 {
                tag["repeated"] = json!(corpus.repeated);
            }
            if let Some(read) = &corpus.read {
                tag["read"] = json!(read);
            }
            tag
        })
        .collect();
    json!({
        "format": FORMAT,
        "version": VERSION,
        "model_fingerprint": observation.model_fingerprint,
        "corpora": Value::Array(corpora).to_string(),
        "layers": observation.layers.len().to_string(),
    })
}

fn header(metadata: Value, entries: &[Entry]) -> String {
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut end = 0;
    for Entry { name, shape, dtype, bytes } in entries {
        let begin = end;
        end += bytes;
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] });
        header.insert(name.to_string(), info);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

fn write_values(values: Values<'_>, out: &mut dyn Write) -> io::Result<()> {
    fn write<T: Copy>(
        out: &mut dyn Write,
        values: &[T],
        bytes: impl Fn(T) -> [u8; 8],
    ) -> io::Result<()> {
        values.chunks(4096).try_for_each(|chunk| {
            let chunk: Vec<[u8; 8]> = chunk.iter().map(|&value| bytes(value)).collect();
            out.write_all(chunk.as_flattened())
        })
    }
    match values {
        Values::Size(size) => out.write_all(&(size as u64).to_le_bytes()),
        Values::Count(count) => out.write_all(&count.to_le_bytes()),
        Values::Counts(counts) => write(out, counts, u64::to_le_bytes),
        Values::Floats(sums) => write(out, sums, f64::to_le_bytes),
    }
}
