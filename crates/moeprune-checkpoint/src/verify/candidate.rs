//! Whether an expert was kept as it is or is the average of its cluster.

use moeprune_core::{LinearId, TensorId};

use super::{
    compare::{MayZero, difference, expected_entry, expected_expert},
    origin::{Average, Origin},
    repaired::NewWeights,
};
use crate::{Checkpoint, Error, select_rows};

/// An expert of the pruned model whose origin is to be decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) source: &'a Checkpoint,
    pub(super) pruned: &'a Checkpoint,
    pub(super) layer: usize,
    /// In the numbering of the pruned model.
    pub(super) expert: usize,
    pub(super) may_zero: MayZero<'a>,
}

impl Candidate<'_> {
    /// Decides what the expert is, given the expert it is said to come from and the cluster of that
    /// one, both of the source.
    ///
    /// The router row decides if it fits only one of the two, else the weights do. If they fit
    /// neither, it counts as kept, and the comparison of its tensors says what is wrong.
    pub(super) fn kept_or_average(self, kept: usize, cluster: &[usize]) -> Result<Origin, Error> {
        let name = self.pruned.name_of(TensorId::linear(self.layer, LinearId::Router))?;
        let old = self.source.tensor_by_name(&name)?;
        let new = self.pruned.tensor_by_name(&name)?;
        let row = select_rows(&new, &[self.expert])?;
        let average =
            || Origin::Average(Average { members: cluster.to_vec(), weights: Vec::new() });
        let mut by_row = Vec::new();
        for origin in [Origin::Kept(kept), average()] {
            if let Some(expected) = expected_entry(&old, 0, &origin)?
                && difference(&row, &expected, self.may_zero.routers).is_ok()
            {
                by_row.push(origin);
            }
        }
        if let [_] = by_row[..] {
            return Ok(by_row.remove(0));
        }
        for origin in [Origin::Kept(kept), average()] {
            if self.has_weights_of(&origin)? {
                return Ok(origin);
            }
        }
        Ok(Origin::Kept(kept))
    }

    fn has_weights_of(self, origin: &Origin) -> Result<bool, Error> {
        let parts = self.pruned.spec().layer_parts(self.layer);
        for part in parts.iter().filter(|part| part.id.expert() == Some(self.expert)) {
            let repairs = self.may_zero.repairs;
            if repairs.new_weights(self.source, self.pruned, part.id) != NewWeights::None {
                continue;
            }
            let got = self.pruned.read_place(self.pruned.place_of(part.id)?)?;
            let may_zero = self.may_zero.linears && part.prunable;
            let expected = expected_expert(self.source, part.id, origin)?;
            if expected.is_none_or(|expected| difference(&got, &expected, may_zero).is_err()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
