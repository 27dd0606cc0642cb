//! Parts of an observation: files that add up to the very bytes of one run.

use std::{
    borrow::Cow,
    io::{self, Write},
    ops::Range,
    path::Path,
};

use moeprune_core::{
    CorpusTag, PartOf,
    observation::{ExactLayer, ExactSums, Kind, Statistics, Values, WideSum},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    PART_FORMAT, VERSION,
    check::check_group,
    container::{Metadata, Problem, Tensors, file, flaw},
    name::{Group, Of},
    write::{Stored, Tensor, write_header},
};
use crate::{
    Error,
    sums_check::{Flaw, check_input, check_routing},
};

/// What a part of an observation is of.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct PartHead {
    /// Identifies the model, as in an observation.
    pub model_fingerprint: String,
    /// The text and how it was sampled; its blocks are those of all parts.
    pub corpus: CorpusTag,
    /// Which part of the blocks.
    pub part: PartOf,
    /// What products were computed in, `f32`, `f32 by tiles` or `bf16`: sums of one are not those of another.
    pub compute: String,
}

impl PartHead {
    /// The blocks that the part is of, counted from 0.
    #[must_use]
    pub fn blocks(&self) -> Range<usize> {
        self.part.range(usize::try_from(self.corpus.samples).unwrap_or(usize::MAX))
    }
}

/// Sums over some blocks of a text.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ObservationPart {
    /// What they are of.
    pub head: PartHead,
    /// One entry per decoder layer.
    pub layers: Vec<ExactLayer>,
}

/// Writes a part of an observation in its [format](self::super#parts), as
/// [`write_observation`](crate::write_observation) writes a whole one.
///
/// # Errors
/// If the file cannot be written.
pub fn write_part(part: &ObservationPart, path: impl AsRef<Path>) -> Result<(), Error> {
    written(path.as_ref(), |file| write_part_to(part, file))
}

/// Writes the bytes of the file that [`write_part`] makes.
///
/// # Errors
/// If `out` fails.
pub fn write_part_to(part: &ObservationPart, out: &mut dyn Write) -> io::Result<()> {
    let ObservationPart { head, layers } = part;
    write(head, layers.len(), &|layer| Ok(Cow::Borrowed(&layers[layer])), out)
}

/// As [`write_part`], of layers that need not be in memory together: `layer` is called twice for each, in order.
///
/// # Errors
/// As [`write_part`]; what `layer` returns.
pub fn write_part_by_layer(
    head: &PartHead,
    layers: usize,
    layer: &dyn Fn(usize) -> io::Result<ExactLayer>,
    path: impl AsRef<Path>,
) -> Result<(), Error> {
    let layer = |index| layer(index).map(Cow::Owned);
    written(path.as_ref(), |file| write(head, layers, &layer, file))
}

fn written(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    moeprune_files::write_whole(path, write)
        .map_err(|e| Error::Write { path: path.to_owned(), source: e.into_io() })
}

fn write<'a>(
    head: &PartHead,
    layers: usize,
    layer: &dyn Fn(usize) -> io::Result<Cow<'a, ExactLayer>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let blocks = head.blocks();
    let (mut entries, mut hash) = (Vec::new(), Sha256::new());
    for index in 0..layers {
        let layer = layer(index)?;
        let tensors = tensors(index, &layer);
        tensors.iter().try_for_each(|tensor| tensor.write(&mut hash))?;
        entries.extend(tensors.iter().map(Tensor::entry));
    }
    let metadata = json!({
        "format": PART_FORMAT,
        "version": VERSION,
        "model_fingerprint": head.model_fingerprint,
        "corpus": json!(head.corpus).to_string(),
        "part": head.part.to_string(),
        "blocks": json!([blocks.start, blocks.end]).to_string(),
        "compute": head.compute,
        "layers": layers.to_string(),
        "sha256": format!("{:x}", hash.finalize()),
    });
    write_header(metadata, &entries, out)?;
    (0..layers).try_for_each(|index| {
        let layer = layer(index)?;
        tensors(index, &layer).iter().try_for_each(|tensor| tensor.write(out))
    })
}

fn tensors(layer: usize, exact: &ExactLayer) -> Vec<Tensor<'_>> {
    let mut tensors = Vec::new();
    if let Some(routing) = &exact.routing {
        push(&mut tensors, Group { layer, of: Of::Routing }, routing);
    }
    for (&site, moments) in &exact.inputs {
        push(&mut tensors, Group { layer, of: Of::Input(site) }, moments);
    }
    tensors
}

fn push<'a, S: Statistics + Clone>(
    tensors: &mut Vec<Tensor<'a>>,
    group: Group,
    sums: &'a ExactSums<S>,
) {
    for (at, row) in S::ROWS.iter().enumerate() {
        let (values, wide) = (row.of(sums.open()), sums.closed(at));
        let is_wide =
            matches!(row.kind, Kind::Sum | Kind::SignedSum) && matches!(values, Values::Floats(_));
        let len = if is_wide { wide.len() } else { values.len() };
        if len == 0 && row.may_be_missing() {
            continue;
        }
        let mut shape = row.shape.dims(sums.open().experts(), len);
        let values = if is_wide {
            shape.push(WideSum::LIMBS);
            Stored::Wide(wide)
        } else {
            Stored::Values(values)
        };
        tensors.push(Tensor { name: group.name(row), shape, values });
    }
}

/// Reads what a part is of, and nothing else of it.
///
/// # Errors
/// If the file cannot be read, is no part of an observation, is cut short, or contradicts itself.
pub fn read_part_head(path: impl AsRef<Path>) -> Result<PartHead, Error> {
    Ok(PartFile::open(path.as_ref())?.head)
}

/// Reads a part of an observation.
///
/// # Errors
/// If the file cannot be read, is no part of an observation, is cut short, or anything in it contradicts the format.
pub fn read_part(path: impl AsRef<Path>) -> Result<ObservationPart, Error> {
    let mut opened = PartFile::open(path.as_ref())?;
    opened.check_bytes()?;
    let layers = (0..opened.layers).map(|layer| opened.layer(layer)).collect::<Result<_, _>>()?;
    Ok(ObservationPart { head: opened.head, layers })
}

/// A part whose layers are read one by one.
pub(super) struct PartFile<'a> {
    pub(super) path: &'a Path,
    pub(super) head: PartHead,
    pub(super) layers: usize,
    tensors: Tensors,
    /// Of the tensors, as they were written.
    sha256: String,
}

impl<'a> PartFile<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, Error> {
        let opened = Tensors::open(path, PART_FORMAT).and_then(|(metadata, tensors)| {
            let (head, sha256) = (head(&metadata)?, metadata.entry("sha256")?.to_owned());
            Ok(Self { path, head, layers: metadata.layers, tensors, sha256 })
        });
        opened.map_err(|problem| of_part(problem, path))
    }

    /// That the tensors are those that were written: a changed bit of a sum would not be seen otherwise.
    pub(super) fn check_bytes(&mut self) -> Result<(), Error> {
        let found = self.tensors.sha256().map_err(|problem| of_part(problem, self.path))?;
        if found == self.sha256 {
            return Ok(());
        }
        let reason =
            "its tensors are not those that were written (SHA-256); observe this part again";
        Err(Error::PartFile { path: self.path.to_owned(), reason: reason.to_owned() })
    }

    pub(super) fn layer(&mut self, layer: usize) -> Result<ExactLayer, Error> {
        self.read_layer(layer).map_err(|problem| of_part(problem, self.path))
    }

    fn read_layer(&mut self, layer: usize) -> Result<ExactLayer, Problem> {
        let mut exact = ExactLayer::default();
        for group in self.tensors.groups(layer) {
            match group.of {
                Of::Routing => exact.routing = Some(self.group(group, check_routing)?),
                Of::Input(site) => {
                    exact.inputs.insert(site, self.group(group, check_input)?);
                }
            }
        }
        Ok(exact)
    }

    fn group<S: Statistics + Clone>(
        &mut self,
        group: Group,
        check: fn(&S) -> Result<(), Flaw>,
    ) -> Result<ExactSums<S>, Problem> {
        let (mut open, mut closed) = (S::default(), Vec::with_capacity(S::ROWS.len()));
        let experts = self.tensors.rows_of_experts::<S>(group)?;
        for row in S::ROWS {
            let is_wide = matches!(row.kind, Kind::Sum | Kind::SignedSum);
            if !is_wide {
                self.tensors.row(group, row, &mut open, experts)?;
            }
            let wide =
                if is_wide { self.tensors.wide_row(group, row, experts)? } else { Vec::new() };
            if row.kind == Kind::Sum
                && let Some(at) = wide.iter().position(|sum| sum.is_negative())
            {
                let got = format!("{} at {at}", wide[at].to_f64());
                return Err(flaw(group.name(row), "sums that are not negative", got));
            }
            closed.push(wide);
        }
        let sums = ExactSums::from_closed(open, closed).map_err(|error| file(error.to_string()))?;
        check_group(group, &sums.rounded(), check).map_err(Problem::Tensor)?;
        Ok(sums)
    }
}

/// The error that names the part.
fn of_part(problem: Problem, path: &Path) -> Error {
    match problem {
        Problem::File(reason) => Error::PartFile { path: path.to_owned(), reason },
        problem => problem.of(path),
    }
}

fn head(metadata: &Metadata) -> Result<PartHead, Problem> {
    let part = metadata.entry("part")?;
    let part: PartOf =
        part.parse().map_err(|error| file(format!("its `part` is broken: {error}")))?;
    let head = PartHead {
        model_fingerprint: metadata.model_fingerprint.clone(),
        corpus: metadata.json("corpus")?,
        part,
        compute: metadata.entry("compute")?.to_owned(),
    };
    let [first, end]: [u64; 2] = metadata.json("blocks")?;
    let blocks = head.blocks();
    if [first, end] != [blocks.start as u64, blocks.end as u64] {
        return Err(file(format!(
            "it has blocks {first} to {end} where part {part} of {} blocks has {} to {}",
            head.corpus.samples, blocks.start, blocks.end
        )));
    }
    Ok(head)
}
