//! How much weight the experts of a token have together.

use serde::{Deserialize, Serialize};

/// The sum of the gate weights of a token's experts, averaged over tokens, in a layer that loses experts.
///
/// Where a router does not divide by that sum, the survivors get what the removed experts had of the
/// softmax, so that the layer's experts count for more than they did. Where both values are there, they
/// are of the same inputs: those that reach the layer in the pruned model. `before` alone is of the
/// inputs that reach it in the unpruned model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct RoutedMass {
    /// With all experts.
    pub before: f64,
    /// With those that stay; `None` if nothing was run after experts went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
}
