//! What the expert stage decided.

use moeprune_core::{LayerPlan, Observation};

/// What the expert stage decided.
#[derive(Default)]
pub(super) struct Decided {
    /// The plan of each layer that loses experts; none if no expert goes.
    pub(super) layers: Vec<LayerPlan>,
    /// What it observed itself, and decided by.
    pub(super) observation: Option<Observation>,
}
