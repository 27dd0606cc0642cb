//! What a model's router and its layers behind the decoder's ask of a cut.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ExtraPolicy, ModelSpec};
use serde::Serialize;

/// Groups that a router selects first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupRule {
    /// Groups. Every layer keeps a multiple of these.
    pub groups: usize,
    /// Groups that are selected for each token.
    pub selected: usize,
    /// The fewest experts that a layer can keep.
    pub at_least: usize,
}

/// Layers behind the decoder's (multi-token prediction).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExtraRule {
    /// Experts of each layer whose tensors are known; 0 of one without. Empty: nothing in the layers is
    /// known.
    pub experts: Vec<usize>,
    /// What a cut does with them by default.
    pub policy: ExtraPolicy,
    /// Whether any tensor of them is stored. If not, the config alone counts them.
    pub is_stored: bool,
}

impl GroupRule {
    /// Of a model; `None` if its router selects no groups.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Option<Self> {
        let moe = spec.layers.iter().find_map(|layer| layer.moe())?;
        let groups = moe.router.groups()?;
        let least = groups.least_per_group(moe.top_k) * groups.count;
        Some(Self { groups: groups.count, selected: groups.selected, at_least: least })
    }

    /// The same as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { groups, selected, at_least } = self;
        format!(
            "The router selects {selected} of {groups} groups of experts first: each layer keeps a \
             multiple of {groups} experts, at least {at_least}."
        )
    }
}

impl ExtraRule {
    /// Of a model; `None` if it has no such layers.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Option<Self> {
        let extra = spec.extra.as_ref()?;
        let experts = extra.layers.iter().map(|layer| layer.moe().map_or(0, |moe| moe.experts));
        let (policy, is_stored) = (extra.policy, extra.is_stored);
        Some(Self { experts: experts.collect(), policy, is_stored })
    }

    /// The same as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        if !self.is_stored {
            return "config.json counts layers for multi-token prediction that are not stored, which \
                    engines may then miss; --mtp drop makes it count none."
                .to_owned();
        }
        let has_experts = self.experts.iter().any(|&experts| experts > 0);
        let what = match self.policy {
            ExtraPolicy::Prune if has_experts => {
                "lose experts with the decoder, by router distance, since engines build them with \
                 the decoder's count"
            }
            ExtraPolicy::Prune | ExtraPolicy::Keep => "are copied as they are",
            ExtraPolicy::Drop => "are left out, and config.json then says that there are none",
        };
        let number = match self.experts.len() {
            0 => String::new(),
            n => format!(" ({n})"),
        };
        format!("Layers for multi-token prediction{number} {what}; --mtp says otherwise.")
    }
}

/// What is to be said of files that hold tensors for multi-token prediction and that no index names.
#[must_use]
pub fn unnamed_extra(checkpoint: &Checkpoint) -> Vec<String> {
    let sentence = |(file, count): (String, usize)| {
        format!(
            "{file} holds {count} tensors for multi-token prediction that no index names: they are not \
             part of a pruned model. To keep them, name them in model.safetensors.index.json first."
        )
    };
    checkpoint.unnamed_extra().into_iter().map(sentence).collect()
}
