//! Whether an expert was kept as it is or is the average of its cluster.

use moeprune_core::{LinearId, TensorId};

use super::{
    Origin,
    compare::{MayZero, difference, expected_entry, expected_expert},
    origin::Average,
};
use crate::{Checkpoint, Error, select_rows};

/// Decides what expert `expert` of the pruned model is, given the expert it is said to come from
/// and the cluster of that one, both of the source.
///
/// The router row decides if it fits only one of the two, else the weights do. If they fit
/// neither, it counts as kept, and the comparison of its tensors says what is wrong.
pub(super) fn kept_or_average(
    source: &Checkpoint,
    pruned: &Checkpoint,
    (layer, expert): (usize, usize),
    kept: usize,
    cluster: &[usize],
    may_zero: MayZero,
) -> Result<Origin, Error> {
    let name = pruned.name_of(TensorId::linear(layer, LinearId::Router))?;
    let (old, new) = (source.tensor_by_name(&name)?, pruned.tensor_by_name(&name)?);
    let row = select_rows(&new, &[expert])?;
    let average = || Origin::Average(Average { members: cluster.to_vec(), weights: Vec::new() });
    let mut by_row = Vec::new();
    for origin in [Origin::Kept(kept), average()] {
        if let Some(expected) = expected_entry(&old, 0, &origin)?
            && difference(&row, &expected, may_zero.routers).is_ok()
        {
            by_row.push(origin);
        }
    }
    if let [_] = by_row[..] {
        return Ok(by_row.remove(0));
    }
    for origin in [Origin::Kept(kept), average()] {
        if has_weights_of(source, pruned, (layer, expert), &origin, may_zero)? {
            return Ok(origin);
        }
    }
    Ok(Origin::Kept(kept))
}

fn has_weights_of(
    source: &Checkpoint,
    pruned: &Checkpoint,
    (layer, expert): (usize, usize),
    origin: &Origin,
    may_zero: MayZero,
) -> Result<bool, Error> {
    let parts = pruned.spec().layer_parts(layer);
    for part in parts.iter().filter(|part| part.id.expert() == Some(expert)) {
        let got = pruned.tensor_by_name(&pruned.name_of(part.id)?)?;
        let may_zero = may_zero.linears && part.prunable;
        let expected = expected_expert(source, part.id, origin)?;
        if expected.is_none_or(|expected| difference(&got, &expected, may_zero).is_err()) {
            return Ok(false);
        }
    }
    Ok(true)
}
