//! Where the experts of a pruned model come from.

use std::collections::BTreeMap;

use moeprune_core::{Survivor, plural};

/// What an expert of the pruned model is made of, in indices of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// One expert, bit for bit.
    Kept(usize),
    /// The average of several.
    Average(Average),
    /// Not known.
    Unknown,
}

impl Origin {
    /// As a plan or a report says of a survivor.
    pub(super) fn of(survivor: &Survivor) -> Self {
        match survivor.average_of.as_slice() {
            [] => Self::Kept(survivor.source),
            members => Self::Average(Average {
                members: members.to_vec(),
                weights: survivor.average_weights.clone(),
            }),
        }
    }
}

/// Experts of the source that were averaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Average {
    pub(super) members: Vec<usize>,
    /// How much each counts; empty when they count the same.
    pub(super) weights: Vec<u64>,
}

/// The experts' origins by layer.
#[derive(Debug, Default)]
pub(super) struct Origins {
    layers: BTreeMap<usize, Vec<Origin>>,
    wrong: Option<String>,
}

impl Origins {
    /// The experts of a layer, and what is wrong with them.
    pub(super) fn add(&mut self, layer: usize, experts: Vec<Origin>, wrong: Option<String>) {
        if let Some(wrong) = wrong {
            self.wrong.get_or_insert_with(|| format!("layer {layer}: {wrong}"));
        }
        self.layers.insert(layer, experts);
    }

    pub(super) fn of(&self, layer: usize, expert: usize) -> &Origin {
        self.layers.get(&layer).and_then(|l| l.get(expert)).unwrap_or(&Origin::Unknown)
    }

    pub(super) fn of_layer(&self, layer: usize) -> &[Origin] {
        self.layers.get(&layer).map_or(&[], Vec::as_slice)
    }

    /// The index of an expert of the source, if it was kept.
    pub(super) fn index_of(&self, layer: usize, expert: usize) -> Option<usize> {
        self.of_layer(layer).iter().position(|origin| *origin == Origin::Kept(expert))
    }

    pub(super) fn check(&self) -> Result<String, String> {
        let all = || self.layers.values().flatten();
        let unknown = all().filter(|o| **o == Origin::Unknown).count();
        match &self.wrong {
            Some(wrong) => Err(wrong.clone()),
            None if unknown > 0 => Err(format!("experts that match none of the source: {unknown}")),
            None => {
                let averages = all().filter(|o| matches!(o, Origin::Average(_))).count();
                let experts = plural(all().count(), "expert");
                Ok(format!("{experts}, {averages} of them averages"))
            }
        }
    }
}
