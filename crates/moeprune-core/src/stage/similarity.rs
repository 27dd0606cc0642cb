//! How alike two experts behave.

use std::fmt;

use crate::{DistanceMatrix, MatrixView, RoutingSums, StageError};

/// How far apart the experts of a layer behave: small means one could stand in for the other.
///
/// Called once per layer while a plan is made, from several threads. The caller guarantees that
/// `layer.router` has one row per expert and finite values, and that bias and scale fit it. The implementer returns a distance for
/// every pair; a missing observation it needs is an error that says so.
///
/// See the [crate's example](crate#example).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an expert similarity",
    note = "implement `ExpertSimilarity::distances`: one distance for each pair of experts of a layer"
)]
pub trait ExpertSimilarity: fmt::Debug + Send + Sync {
    /// Distances between the experts of one layer, in any unit; only compared with each other,
    /// across layers too when the budget is global.
    ///
    /// # Errors
    /// If the layer lacks what the similarity needs, or a distance would not be finite.
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError>;

    /// Whether [`LayerBehaviour::routing`] must be there: the pipeline then asks for an
    /// observation before it starts.
    fn needs_observation(&self) -> bool {
        false
    }
}

/// What is known of a layer's experts without reading their weights.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a view the pipeline fills")]
pub struct LayerBehaviour<'a> {
    /// Decoder layer.
    pub layer: usize,
    /// Router weight `[experts, hidden]`; row `i` belongs to expert `i`.
    pub router: MatrixView<'a>,
    /// Added to the experts' logits, one value per expert; `None` if the router has no bias.
    pub router_bias: Option<&'a [f32]>,
    /// What each feature of the normalised hidden state is multiplied by before the router reads it,
    /// `[hidden]`: the weights of the norm. `None` if they are not known; then rows are as stored.
    pub router_scale: Option<&'a [f32]>,
    /// What the router chose on calibration text, when an observation is there.
    pub routing: Option<&'a RoutingSums>,
}

impl<'a> LayerBehaviour<'a> {
    /// A layer of which the router's rows alone are known.
    #[must_use]
    pub fn new(layer: usize, router: MatrixView<'a>) -> Self {
        Self { layer, router, router_bias: None, router_scale: None, routing: None }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.router.rows()
    }
}
