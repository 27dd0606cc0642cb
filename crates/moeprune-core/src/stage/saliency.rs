//! How much an expert matters to its layer.

use std::fmt;

use crate::{LayerBehaviour, StageError};

/// How much each expert of a layer matters: the least salient go first.
///
/// Called once per layer while a plan is made, from several threads. The caller guarantees that
/// `layer.router` has one row per expert, and that `layer.routing` is there if
/// [`needs_observation`](Self::needs_observation) says so. The implementer returns one finite
/// number per expert, not negative, as a pure function of the layer; what unit it has is of no
/// account, as only numbers of one layer are compared, or, under a global budget, their shares of
/// the layer's sum.
///
/// ```
/// use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};
///
/// /// Experts with long router rows matter.
/// #[derive(Debug)]
/// struct RowLength;
///
/// impl ExpertSaliency for RowLength {
///     fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
///         let length = |e| layer.router.row(e).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
///         Ok((0..layer.experts()).map(|e| length(e).sqrt()).collect())
///     }
///
///     fn needs_observation(&self) -> bool {
///         false
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an expert saliency",
    note = "implement `ExpertSaliency::saliency`: one number for each expert of a layer, larger for \
            one that matters more"
)]
pub trait ExpertSaliency: fmt::Debug + Send + Sync {
    /// One number per expert, larger for one that matters more.
    ///
    /// # Errors
    /// If the layer lacks what the saliency needs.
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError>;

    /// Whether [`LayerBehaviour::routing`] must be there: the pipeline then asks for an
    /// observation before it starts.
    fn needs_observation(&self) -> bool {
        true
    }
}
