//! How an overall ratio is split over the layers.

use std::fmt;

use crate::{Sparsity, StageError};

/// Splits one unstructured ratio into one ratio per layer.
///
/// Called once, before anything is masked. The caller guarantees at least one layer, and
/// [`LayerProfile::outlier_percent`] in every layer when
/// [`outlier_threshold`](Self::outlier_threshold) is `Some`. The implementer returns one ratio a
/// layer, in order, with the parameter-weighted mean equal to `ratio` up to rounding (unless it
/// reproduces a reference that does otherwise and says so).
///
/// ```
/// use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator, StageError};
///
/// #[derive(Debug)]
/// struct Same;
///
/// impl SparsityAllocator for Same {
///     fn allocate(&self, layers: &[LayerProfile], ratio: Sparsity) -> Result<Vec<Sparsity>, StageError> {
///         Ok(vec![ratio; layers.len()])
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sparsity allocator",
    note = "implement `SparsityAllocator::allocate`: one ratio for each layer"
)]
pub trait SparsityAllocator: fmt::Debug + Send + Sync {
    /// One ratio per layer.
    ///
    /// # Errors
    /// If the ratio cannot be split so.
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError>;

    /// Whether the ratios it returns keep the parameter-weighted mean, so that the total is met.
    /// `false` of one that reproduces a reference that does otherwise.
    fn keeps_mean(&self) -> bool {
        true
    }

    /// `Some(m)` when the allocation wants, for each layer, the percentage of scores above `m`
    /// times the layer's mean score. The pipeline then makes a statistics pass first.
    fn outlier_threshold(&self) -> Option<f64> {
        None
    }
}

/// What an allocation may look at.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a view the pipeline fills")]
pub struct LayerProfile {
    /// Decoder layer.
    pub layer: usize,
    /// Weights of the layer that may be zeroed.
    pub prunable: u64,
    /// Percentage (0 to 100) of the layer's scores above the threshold times their mean.
    pub outlier_percent: Option<f64>,
}
