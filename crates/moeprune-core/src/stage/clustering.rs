//! Which experts may stand in for each other.

use std::fmt;

use crate::{DistanceMatrix, Partition, StageError, plural};

/// Groups the experts of every layer so that the number of groups meets a budget *exactly*.
///
/// Called once for all layers, because a global budget weighs one layer's distances against
/// another's. The caller guarantees a feasible budget (see [`ExpertBudget::check`]). The
/// implementer returns one [`Partition`] per layer, in order, of that layer's experts.
///
/// ```
/// use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition, StageError};
///
/// /// Keeps the first experts and puts the rest together with the last of them.
/// #[derive(Debug)]
/// struct KeepFirst;
///
/// impl ExpertClustering for KeepFirst {
///     fn cluster(
///         &self,
///         layers: &[DistanceMatrix],
///         budget: &ExpertBudget,
///     ) -> Result<Vec<Partition>, StageError> {
///         let ExpertBudget::Uniform { keep } = *budget else {
///             return Err("KeepFirst knows only uniform budgets".into());
///         };
///         Ok(layers
///             .iter()
///             .map(|d| Partition::from_labels(&(0..d.len()).map(|e| e.min(keep - 1)).collect::<Vec<_>>()))
///             .collect())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an expert clustering",
    note = "implement `ExpertClustering::cluster`: one partition per layer, as many clusters as the budget says"
)]
pub trait ExpertClustering: fmt::Debug + Send + Sync {
    /// One partition per layer.
    ///
    /// # Errors
    /// If no clustering of this kind meets the budget.
    fn cluster(
        &self,
        layers: &[DistanceMatrix],
        budget: &ExpertBudget,
    ) -> Result<Vec<Partition>, StageError>;
}

/// How many experts are kept, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpertBudget {
    /// Every layer keeps `keep` experts: what serving engines can load.
    Uniform {
        /// Experts left in each layer.
        keep: usize,
    },
    /// `keep` experts are left over all layers; each layer keeps `min_per_layer` or more.
    Global {
        /// Experts left in all layers together.
        keep: usize,
        /// Fewest experts a layer may fall to; the router's top-k by default.
        min_per_layer: usize,
    },
}

impl ExpertBudget {
    /// Whether layers with these numbers of experts can meet the budget.
    ///
    /// # Errors
    /// A sentence that says what is too many or too few.
    pub fn check(&self, experts: &[usize]) -> Result<(), StageError> {
        match *self {
            Self::Uniform { keep } => {
                let Some(&fewest) = experts.iter().min() else { return Ok(()) };
                if keep == 0 {
                    return Err("a layer cannot keep 0 experts".into());
                }
                if keep > fewest {
                    return Err(format!(
                        "cannot keep {} in a layer that has {fewest}",
                        plural(keep, "expert")
                    )
                    .into());
                }
            }
            Self::Global { keep, min_per_layer } => {
                let total: usize = experts.iter().sum();
                let floor: usize = experts.iter().map(|&n| n.min(min_per_layer.max(1))).sum();
                if keep > total || keep < floor {
                    return Err(format!(
                        "cannot keep {} over {}: they have {total}, and at \
                         least {min_per_layer} a layer must stay ({floor} in all)",
                        plural(keep, "expert"),
                        plural(experts.len(), "layer")
                    )
                    .into());
                }
            }
        }
        Ok(())
    }
}
