//! What a report says that a repair made of each part.

use serde::Deserialize;

use crate::{
    TensorId,
    repair::{ExpertOutcome, RepairablePart, RepairedPart},
};

/// What a report says that a repair made of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairClaim<'a> {
    /// It does not say.
    Unknown,
    /// It is as it was.
    Unchanged,
    /// Its bytes have this hash.
    Made {
        /// SHA-256 in lower-case hexadecimal digits.
        sha256: &'a str,
        /// The same of what its codes are read with, in the order of its encoding; none of a part without.
        companions: &'a [String],
        /// Whether that was after weights were zeroed, so that nothing changed it since.
        last: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RepairProvenance {
    layers: Vec<LayerClaim>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct LayerClaim {
    repair: Outcomes,
    parts: Option<Vec<RepairedPart>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Outcomes {
    layer: Option<usize>,
    reverted: bool,
    experts: Vec<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Outcome {
    expert: usize,
    outcome: ExpertOutcome,
}

impl RepairProvenance {
    pub(super) fn claim(&self, part: TensorId) -> RepairClaim<'_> {
        let TensorId::Layer(layer, tensor) = part else { return RepairClaim::Unknown };
        let Some(part) = RepairablePart::of(tensor) else { return RepairClaim::Unknown };
        self.entry(layer).map_or(RepairClaim::Unknown, |entry| entry.claim(part))
    }

    pub(super) fn entry(&self, layer: usize) -> Option<&LayerClaim> {
        self.layers.iter().find(|entry| entry.repair.layer == Some(layer))
    }
}

impl LayerClaim {
    fn claim(&self, part: RepairablePart) -> RepairClaim<'_> {
        let outcome = self.repair.experts.iter().find(|outcome| outcome.expert == part.expert);
        let refitted = |outcome: &Outcome| outcome.outcome == ExpertOutcome::Refitted;
        if self.repair.reverted || outcome.is_some_and(|outcome| !refitted(outcome)) {
            return RepairClaim::Unchanged;
        }
        let Some(parts) = &self.parts else { return RepairClaim::Unknown };
        match parts.iter().find(|repaired| repaired.part() == part) {
            Some(RepairedPart { sha256, companions, .. }) => {
                RepairClaim::Made { sha256, companions, last: false }
            }
            None => RepairClaim::Unchanged,
        }
    }
}
