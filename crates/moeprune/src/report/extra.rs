//! What became of the layers behind the decoder's (multi-token prediction).

use moeprune_core::{ExtraPolicy, ModelSpec, Plan};
use serde::{Deserialize, Serialize};

use super::LayerReport;

/// What became of the layers behind the decoder's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct ExtraReport {
    /// What was done with them.
    pub policy: ExtraPolicy,
    /// One entry per layer that is left and whose tensors are known.
    pub layers: Vec<LayerReport>,
}

impl ExtraReport {
    /// `None` of a model without such layers.
    pub(super) fn new(spec: &ModelSpec, plan: &Plan) -> Option<Self> {
        spec.extra.as_ref()?;
        let policy = spec.policy_of(plan);
        let left = spec.after(plan).extra_layers();
        let layers = left.map(|l| LayerReport::new(spec, plan, l, None, Default::default()));
        Some(Self { policy, layers: layers.collect() })
    }

    /// The same as a sentence.
    pub(super) fn sentence(&self) -> String {
        let each = |layer: &LayerReport| {
            let (index, before, kept) = (layer.index, layer.experts_before, layer.kept.len());
            match before {
                0 => format!("layer {index} has no experts"),
                _ => format!("layer {index} keeps {kept} of {before} experts"),
            }
        };
        let each: Vec<String> = self.layers.iter().map(each).collect();
        let each = if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) };
        match self.policy {
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
