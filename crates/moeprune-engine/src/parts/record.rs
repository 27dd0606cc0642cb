//! What a finished part says about itself.

use std::{io::ErrorKind, path::Path};

use moeprune_checkpoint::OutputDirectory;
use moeprune_core::{CorpusTag, PartOf, Plan, Sparsity, StatisticsSource};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::{
    Applied, Error, StageReport, WrittenLayer,
    session::{Record, RunIdentity},
};

/// The file without which a folder is no part.
pub const PART_FILE: &str = "moeprune-part.json";

const FORMAT: u32 = 1;

/// The file: the record, and a hash that tells whether it is as it was written.
#[derive(Serialize, Deserialize)]
struct PartFile<R> {
    format: u32,
    sha256: String,
    record: R,
}

/// What was done, by which run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    part: PartOf,
    /// What all parts have in common, and which part it is.
    begun: RunIdentity,
    /// With the survivors that it had left open.
    plan: Plan,
    /// Of all layers.
    ratios: Option<Vec<f64>>,
    /// One per layer of the part.
    written: Vec<Record>,
    statistics: Option<StatisticsSource>,
    corpora: Vec<CorpusTag>,
    device: String,
    stages: Vec<StageReport>,
}

impl PartRecord {
    /// Of a part whose layers begin at `first`.
    pub(super) fn of(applied: Applied, (part, first): (PartOf, usize), begun: RunIdentity) -> Self {
        let Applied { plan, ratios, layers, statistics, corpora, device, clock, .. } = applied;
        let written = |(layer, written): (usize, WrittenLayer)| {
            let WrittenLayer { zeros, idle, scored, without_zero, mass } = written;
            Record::Written { layer, zeros, idle, scored, without_zero, mass }
        };
        Self {
            part,
            begun: begun.with_part(part),
            plan,
            ratios: ratios.map(|ratios| ratios.into_iter().map(Sparsity::value).collect()),
            written: (first..).zip(layers).map(written).collect(),
            statistics,
            corpora,
            device,
            stages: clock.stages().to_vec(),
        }
    }

    /// Writes the record into the folder that becomes the part.
    pub(super) fn write(&self, output: &OutputDirectory) -> Result<(), Error> {
        let file = PartFile { format: FORMAT, sha256: self.sha256()?, record: self };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|e| Error::Parts(format!("the record of a part cannot be written: {e}")))?;
        Ok(output.write(PART_FILE, &text)?)
    }

    /// The record in a folder; `None` if there is none.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(PART_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::io(&path, "read", e)),
        };
        let damaged = |problem: String| {
            let again = "remove the folder and write that part again";
            Error::part(folder, format!("{PART_FILE} {problem}; {again}"))
        };
        let format: Format =
            serde_json::from_slice(&text).map_err(|e| damaged(format!("cannot be read ({e})")))?;
        if format.format != FORMAT {
            let other = format!("is of format {}, and {FORMAT} is expected", format.format);
            return Err(damaged(other));
        }
        let PartFile::<Self> { sha256, record, .. } =
            serde_json::from_slice(&text).map_err(|e| damaged(format!("cannot be read ({e})")))?;
        if record.sha256()? != sha256 {
            return Err(damaged("is not as it was written".to_owned()));
        }
        Ok(Some(record))
    }

    fn sha256(&self) -> Result<String, Error> {
        let text = serde_json::to_vec(self)
            .map_err(|e| Error::Parts(format!("the record of a part cannot be written: {e}")))?;
        Ok(format!("{:x}", Sha256::digest(text)))
    }

    pub(super) fn part(&self) -> PartOf {
        self.part
    }

    pub(super) fn begun(&self) -> &RunIdentity {
        &self.begun
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn ratios(&self) -> Result<Option<Vec<Sparsity>>, Error> {
        let ratios = self.ratios.as_ref();
        let checked = ratios.map(|ratios| ratios.iter().map(|&r| Ok(Sparsity::new(r)?)).collect());
        checked.transpose()
    }

    /// The layers that the record says were written, in order.
    pub(super) fn written(&self) -> impl Iterator<Item = (usize, WrittenLayer)> {
        self.written.iter().filter_map(Record::written)
    }

    pub(super) fn statistics(&self) -> Option<StatisticsSource> {
        self.statistics
    }

    pub(super) fn corpora(&self) -> &[CorpusTag] {
        &self.corpora
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }

    pub(super) fn stages(&self) -> &[StageReport] {
        &self.stages
    }

    /// What differs from another part of the same run beside what was written, as text.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences =
            self.begun.clone().without_part().changes(&other.begun.clone().without_part());
        let computed = [
            ("the survivors", self.plan != other.plan),
            ("the ratios of layers", self.ratios != other.ratios),
            ("the texts", self.corpora != other.corpora),
            ("the source of statistics", self.statistics != other.statistics),
            ("the device", self.device != other.device),
        ];
        if differences.is_empty() {
            let differ = computed.iter().filter(|(_, differ)| *differ);
            differences.extend(differ.map(|(what, _)| format!("{what} are others")));
        }
        differences
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn as_text<S: Serializer>(part: &PartOf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(part)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PartOf, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}
