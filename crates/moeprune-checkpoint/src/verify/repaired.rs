//! Which parts may have new weights because experts that stay make up for those that went.

use moeprune_core::{Plan, Provenance, RepairClaim, TensorBytes, TensorId, repair::RepairablePart};
use sha2::{Digest as _, Sha256};

use crate::Checkpoint;

/// What a plan or a report says of experts that stay and were changed. Nothing is without either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repairs<'a> {
    /// Whether any were.
    pub(super) any: bool,
    hint: Option<&'a Provenance>,
}

/// What a repair may have made of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewWeights<'a> {
    /// Nothing.
    None,
    /// Any weights.
    Any,
    /// Those whose bytes have this hash; of codes, and what they are read with.
    Of { sha256: &'a str, companions: &'a [String], last: bool },
}

impl<'a> Repairs<'a> {
    /// As a plan says, or else a report; which parts of them, as the report says.
    pub(super) fn of(plan: Option<&Plan>, hint: Option<&'a Provenance>) -> Self {
        let any = match plan {
            Some(plan) => plan.repairs,
            None => hint.is_some_and(Provenance::repairs),
        };
        Self { any, hint }
    }

    /// The weights that a part may have: any that the report allows in a [`RepairablePart`] of a layer of the
    /// decoder that lost experts, or of one that was refitted after weights were zeroed.
    pub(super) fn new_weights(
        self,
        source: &Checkpoint,
        pruned: &Checkpoint,
        part: TensorId,
    ) -> NewWeights<'a> {
        let TensorId::Layer(layer, tensor) = part else { return NewWeights::None };
        if RepairablePart::of(tensor).is_none() || layer >= source.spec().layers.len() {
            return NewWeights::None;
        }
        let experts = |of: &Checkpoint| of.spec().moe_of(layer).map_or(0, |moe| moe.experts);
        let may_change = self.any && experts(pruned) < experts(source);
        match self.hint.map_or(RepairClaim::Unknown, |hint| hint.repair_of(part)) {
            RepairClaim::Made { sha256, companions, last } if may_change || last => {
                NewWeights::Of { sha256, companions, last }
            }
            RepairClaim::Unknown if may_change => NewWeights::Any,
            _ => NewWeights::None,
        }
    }
}

/// Whether a report on a model whose experts were repaired says what became of each layer that lost experts:
/// of others it bounds nothing but the number of zeros.
pub(super) fn check_layers(
    source: &Checkpoint,
    pruned: &Checkpoint,
    hint: &Provenance,
) -> Result<String, String> {
    let experts = |of: &Checkpoint, layer| of.spec().moe_of(layer).map_or(0, |moe| moe.experts);
    let layers = 0..source.spec().layers.len();
    let lost: Vec<usize> =
        layers.filter(|&layer| experts(pruned, layer) < experts(source, layer)).collect();
    let missing: Vec<usize> =
        lost.iter().copied().filter(|&layer| !hint.has_repair_of_layer(layer)).collect();
    if missing.is_empty() {
        return Ok(format!("the report says what the repair did to {} layers", lost.len()));
    }
    Err(format!(
        "experts that stay were repaired, and the report does not say what that did to layers {missing:?}, which \
         lost experts: what their down projections should be is not known"
    ))
}

/// Which of the tensors that an encoding reads codes with this is; `None` of one that it does not read.
pub(super) fn companion_index(model: &Checkpoint, part: TensorId, suffix: &str) -> Option<usize> {
    let mut companions = model.companions_of(part).iter();
    companions.position(|of| of.suffix.trim_start_matches('.') == suffix)
}

/// Whether bytes have a hash, or how they differ.
pub(super) fn check_hash(got: &TensorBytes<'_>, sha256: &str) -> Result<(), String> {
    let found = format!("{:x}", Sha256::digest(got.bytes()));
    if found == sha256 {
        return Ok(());
    }
    Err(format!(
        "is not what the repair made of it: its SHA-256 is {found}, the report expects {sha256}"
    ))
}
