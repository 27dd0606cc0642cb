//! Numbers of experts.

use moeprune_core::ModelSpec;

/// Experts of each decoder layer that has any.
pub(super) fn experts_of(spec: &ModelSpec) -> Vec<usize> {
    spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).collect()
}
