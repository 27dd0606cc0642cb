//! What is said where a routed mass was not measured.

use moeprune_core::{ModelSpec, plural};

use super::LayerReport;

/// Why the mass of layers that lost experts is not known, and what would measure it; `None` if it is
/// known wherever it changes, or nothing could: of a model that is cut and not run, whose routers are not known
/// either.
pub(super) fn unmeasured(spec: &ModelSpec, layers: &[LayerReport]) -> Option<String> {
    if spec.undecoded.is_some() {
        return None;
    }
    let changes = |layer: &&LayerReport| {
        let moe = spec.moe_of(layer.index).filter(|_| layer.kept.len() < layer.experts_before);
        moe.is_some_and(|moe| !moe.router.keeps_mass())
    };
    let unknown = |layer: &&LayerReport| layer.routed_mass.and_then(|mass| mass.after).is_none();
    let open: Vec<&LayerReport> = layers.iter().filter(changes).filter(unknown).collect();
    let first = open.first()?;
    let known = "of the unpruned model it is known from its observation";
    let before = match first.routed_mass {
        Some(_) => format!("; {known}"),
        None => ", nor was the model observed".to_owned(),
    };
    Some(format!(
        "What a token's experts weigh together changes where experts went ({}), and was not measured \
         with those that stay, since the pruned model was not run{before}. To measure it, run `moeprune \
         observe` on the pruned model with the same calibration text: in the observation it is the sum of \
         gate_sums over tokens, per layer.",
        plural(open.len(), "layer")
    ))
}
