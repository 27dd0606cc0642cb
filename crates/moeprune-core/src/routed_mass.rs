//! How much weight the experts of a token have together.

use serde::{Deserialize, Serialize};

/// The sum of the gate weights of a token's experts, averaged over tokens, in a layer that loses experts.
///
/// Where a router does not divide by that sum, the survivors get what the removed experts had of the
/// softmax, so that the layer's experts count for more than they did. Both values are of the same
/// inputs: those that reach the layer in the pruned model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct RoutedMass {
    /// With all experts.
    pub before: f64,
    /// With those that stay.
    pub after: f64,
}
