//! Which expert of a cluster survives.

use std::fmt;

use crate::{MatrixView, Partition, StageError, Survivor};

/// Decides for each cluster of a layer which expert stands for it, or that they are averaged.
///
/// Called once per layer: while a plan is made, if that takes no reading of weights, otherwise when
/// the plan is applied. The caller guarantees that the partition covers the layer's experts. The
/// implementer returns one [`Survivor`] a cluster, ascending by [`Survivor::source`], each from its
/// cluster.
///
/// ```
/// use moeprune_core::{
///     ClusteredLayer, ExpertSelector, ExpertWeights, StageError, Survivor, SurvivorReason,
/// };
///
/// /// The expert with the lowest index survives.
/// #[derive(Debug)]
/// struct First;
///
/// impl ExpertSelector for First {
///     fn select(
///         &self,
///         layer: &ClusteredLayer<'_>,
///         _experts: &dyn ExpertWeights,
///     ) -> Result<Vec<Survivor>, StageError> {
///         let first = |c: &Vec<usize>| Survivor::kept(c[0], SurvivorReason::LowestIndex);
///         Ok(layer.partition.clusters().iter().map(first).collect())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an expert selector",
    note = "implement `ExpertSelector::select`: one survivor for each cluster of a layer"
)]
pub trait ExpertSelector: fmt::Debug + Send + Sync {
    /// One survivor a cluster, ascending by source index.
    ///
    /// # Errors
    /// If an expert cannot be read.
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError>;

    /// Whether [`select`](Self::select) may read experts of a layer with these clusters.
    ///
    /// Where it does not, the choice is part of the plan. A plan for a model of a terabyte is made
    /// in a second that way.
    fn reads_experts(&self, partition: &Partition) -> bool {
        let _ = partition;
        true
    }

    /// Whether [`select`](Self::select) averages clusters of these.
    fn averages(&self, partition: &Partition) -> bool {
        let _ = partition;
        false
    }

    /// The same rule without averages, for experts that are stored in codes, which have no room for them.
    /// `None` if averages are what was asked for, or there are none.
    fn selecting(&self) -> Option<Box<dyn ExpertSelector>> {
        None
    }

    /// Whether [`ClusteredLayer::tokens`] must be there: the pipeline then asks for an observation
    /// before it starts.
    fn needs_observation(&self) -> bool {
        false
    }
}

/// A layer whose experts have been grouped.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a view the pipeline fills")]
pub struct ClusteredLayer<'a> {
    /// Decoder layer.
    pub layer: usize,
    /// The clusters.
    pub partition: &'a Partition,
    /// Router weight `[experts, hidden]`.
    pub router: MatrixView<'a>,
    /// Calibration tokens routed to each expert, when an observation is there.
    pub tokens: Option<&'a [u64]>,
}

/// Reads the experts of one layer in pieces: only what a selector holds is in memory.
///
/// An expert is the row of its parameters: gate, up and down weights, each row-major, one after the
/// other. Every expert of a layer has as many in the same order.
///
/// Called by selectors, from any thread. Pieces that many threads read at places near each other
/// are what a disk serves best.
pub trait ExpertWeights: Sync {
    /// How many parameters each expert has.
    fn parameters(&self) -> usize;

    /// Writes the parameters `start .. start + out.len()` of an expert to `out`, as f32.
    ///
    /// # Errors
    /// If the expert does not exist, the range exceeds it, or it cannot be read.
    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError>;
}
