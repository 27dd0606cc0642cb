//! What became of the layers behind the decoder's (multi-token prediction).

use moeprune_core::{ExtraPolicy, ModelSpec, Plan, plural};
use serde::{Deserialize, Serialize};

use super::LayerReport;

/// What became of the layers behind the decoder's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct ExtraReport {
    /// What was done with them.
    pub policy: ExtraPolicy,
    /// Whether any tensor of them was stored. If not, the config alone counted them.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_stored: bool,
    /// What the names of each layer's tensors begin with, where that is not as of the decoder's layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// One entry per layer that is left and whose tensors are known.
    pub layers: Vec<LayerReport>,
}

/// What a report says that does not say it.
fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_yes(is_stored: &bool) -> bool {
    *is_stored
}

impl ExtraReport {
    /// `None` of a model without such layers.
    pub(super) fn new(spec: &ModelSpec, plan: &Plan) -> Option<Self> {
        let extra = spec.extra.as_ref()?;
        let (names, is_stored) = (extra.names.clone(), extra.is_stored);
        let policy = spec.policy_of(plan);
        let left = spec.after(plan).extra_layers();
        let layers = left.map(|l| LayerReport::new(spec, plan, l, None, Default::default()));
        Some(Self { policy, is_stored, names, layers: layers.collect() })
    }

    /// The same as a sentence.
    pub(super) fn sentence(&self) -> String {
        if !self.is_stored {
            let counts = match self.policy {
                ExtraPolicy::Drop => "no longer counts",
                ExtraPolicy::Prune | ExtraPolicy::Keep => "still counts",
            };
            return format!(
                "The layers for multi-token prediction that config.json counted are not stored; it \
                 {counts} them."
            );
        }
        let each = |(at, layer): (usize, &LayerReport)| {
            let (before, kept) = (layer.experts_before, layer.kept.len());
            let name = match self.names.get(at) {
                Some(name) => format!("layer {} ({name})", layer.index),
                None => format!("layer {}", layer.index),
            };
            match before {
                0 => format!("{name} has no experts"),
                _ => format!("{name} keeps {kept} of {}", plural(before, "expert")),
            }
        };
        let each: Vec<String> = self.layers.iter().enumerate().map(each).collect();
        let each = if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) };
        match self.policy {
            ExtraPolicy::Prune if self.layers.iter().all(|l| l.kept.len() == l.experts_before) => {
                format!(
                    "The layers for multi-token prediction, behind the decoder's, lost no experts, since \
                     a decoder layer keeps as many as they have{each}."
                )
            }
            ExtraPolicy::Prune => format!(
                "The layers for multi-token prediction, behind the decoder's, lost experts with it, by \
                 router distance or a keep-list{each}. How well they still predict was not measured."
            ),
            ExtraPolicy::Keep => format!(
                "The layers for multi-token prediction, behind the decoder's, were copied as they \
                 are{each}."
            ),
            ExtraPolicy::Drop => {
                "The layers for multi-token prediction, behind the decoder's, were left \
                 out, and config.json, where it counts them, says that there are none: engines cannot \
                 use them for speculative decoding."
                    .to_owned()
            }
        }
    }
}
