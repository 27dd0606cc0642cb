//! Reading the report beside a pruned model.

use std::path::Path;

use moeprune_core::{Provenance, REPORT_FILE, SameModel};

use crate::{Checkpoint, Error};

/// No report is near this; a larger file is something else.
const MAX_BYTES: u64 = 1 << 30;

/// What the report beside `pruned` says. It is believed in nothing that the tensors do not confirm:
/// it says what to compare a tensor with, and where zeros are to be expected.
///
/// None if there is no report, or if it is about another source: a model pruned twice may carry the
/// report of the first time. The inner error says why the report cannot be read.
pub(super) fn read(
    pruned: &Checkpoint,
    source: &Checkpoint,
) -> Result<Result<Option<Provenance>, String>, Error> {
    let bytes = match read_report(pruned) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Ok(None)),
        Err(reason) => return Ok(Err(format!("{REPORT_FILE}: {reason}"))),
    };
    let hint: Provenance = match serde_json::from_slice(&bytes) {
        Ok(hint) => hint,
        Err(e) => return Ok(Err(format!("{REPORT_FILE} is not a report: {e}"))),
    };
    let other = match &hint.model.fingerprint {
        Some(fingerprint) => source.is_of(fingerprint)? == SameModel::No,
        None => false,
    };
    Ok(Ok((!other).then_some(hint)))
}

fn read_report(pruned: &Checkpoint) -> Result<Option<Vec<u8>>, String> {
    let files = pruned.files();
    let bytes = files.read(Path::new(REPORT_FILE), MAX_BYTES + 1).map_err(|e| e.to_string())?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > MAX_BYTES) {
        return Err(format!("is larger than {MAX_BYTES} bytes; not a report"));
    }
    Ok(bytes)
}
