//! What the report beside a pruned model says about it.

use std::path::Path;

use moeprune_core::Survivor;
use serde::Deserialize;
use serde_json::Value;

use crate::{Checkpoint, Error};

/// The report that a run leaves beside the weights.
const REPORT_FILE: &str = "moeprune-report.json";

/// No report is near this; a larger file is something else.
const MAX_BYTES: u64 = 1 << 30;

/// The part of a report that helps to compare tensors. It is believed in nothing that the tensors
/// do not bear out: it says what to compare a tensor with, and where zeros are to be expected.
///
/// Fields that are missing say nothing; others are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    model: HintedModel,
    layers: Vec<HintedLayer>,
    pub(super) weights_changed: bool,
    pub(super) recipe: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HintedModel {
    fingerprint: Option<String>,
}

/// One decoder layer, its experts as indices of the source.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HintedLayer {
    index: Option<usize>,
    kept: Option<Vec<usize>>,
    clusters: Vec<Vec<usize>>,
    merged: Vec<Survivor>,
    ratio: Option<f64>,
}

impl Hint {
    /// Reads the report beside `pruned`. None if there is none, or if it is about another source: a model
    /// pruned twice may carry the report of the first time.
    ///
    /// The inner error says why the report cannot be read.
    pub(super) fn read(
        pruned: &Checkpoint,
        source: &Checkpoint,
    ) -> Result<Result<Option<Self>, String>, Error> {
        let bytes = match read_report(pruned) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(format!("{REPORT_FILE}: {reason}"))),
        };
        let hint: Self = match serde_json::from_slice(&bytes) {
            Ok(hint) => hint,
            Err(e) => return Ok(Err(format!("{REPORT_FILE} is not a report: {e}"))),
        };
        let fingerprint = source.fingerprint()?;
        let other = hint.model.fingerprint.as_ref().is_some_and(|of| *of != fingerprint);
        Ok(Ok((!other).then_some(hint)))
    }

    /// Whether weights were zeroed, as far as the report says: no layer with a ratio means that
    /// only experts went.
    pub(super) fn may_zero(&self) -> bool {
        self.layers.is_empty() || self.layers.iter().any(|layer| layer.ratio.is_some())
    }

    /// How the expert that comes from `source` was averaged, if the report says that it was.
    pub(super) fn merged(&self, layer: usize, source: usize) -> Option<&Survivor> {
        let hinted = self.layers.iter().find(|hinted| hinted.index == Some(layer))?;
        hinted.merged.iter().find(|survivor| survivor.source == source)
    }

    /// The layer's kept experts and its clusters.
    pub(super) fn layer(&self, layer: usize) -> Option<(&[usize], &[Vec<usize>])> {
        let hinted = self.layers.iter().find(|hinted| hinted.index == Some(layer))?;
        Some((hinted.kept.as_deref()?, &hinted.clusters))
    }
}

fn read_report(pruned: &Checkpoint) -> Result<Option<Vec<u8>>, String> {
    let files = pruned.files();
    let bytes = files.read(Path::new(REPORT_FILE), MAX_BYTES + 1).map_err(|e| e.to_string())?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > MAX_BYTES) {
        return Err(format!("is larger than {MAX_BYTES} bytes; not a report"));
    }
    Ok(bytes)
}
