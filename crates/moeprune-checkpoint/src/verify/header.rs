//! What weight files say of their model, against what the source says.

use crate::{Checkpoint, PlannedTensor, StoredTensor, WeightRequest};

/// Checks that weight files that describe their model begin as they would if they were written from the source.
pub(super) fn check_header(source: &Checkpoint, pruned: &Checkpoint) -> Result<(), String> {
    let form = source.pruned_form(pruned.spec()).map_err(|e| e.to_string())?;
    let planned = |t: &StoredTensor| PlannedTensor {
        name: t.name.clone(),
        dtype: t.dtype,
        shape: t.shape.clone(),
    };
    let mut request = WeightRequest::new(pruned.tensors().map(planned).collect(), u64::MAX);
    request.metadata = form.metadata;
    let plan = form.container.plan(request).map_err(|e| e.to_string())?;
    let files: Vec<&str> = pruned.shard_files().collect();
    if plan.files.len() != files.len() {
        return Err(format!("{} files of weights, expected {}", files.len(), plan.files.len()));
    }
    for (planned, (at, name)) in plan.files.iter().zip(files.iter().enumerate()) {
        let file = pruned.weight_file(at);
        let length = (planned.header.len() as u64).min(file.len());
        let header = file.read(0..length).map_err(|e| e.to_string())?;
        if *header != *planned.header {
            return Err(format!(
                "the header of {name} differs from the source's in more than the expert counts"
            ));
        }
    }
    Ok(())
}
