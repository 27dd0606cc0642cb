//! One matrix on a device, zeroed in place.

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaStream, CudaView, CudaViewMut, DevicePtr, LaunchConfig, PushKernelArg,
};
use moeprune_core::{Dtype, LinearView, Sparsity, WeightScorer};

use super::{
    Error, ScoreKernels,
    error::Tried,
    kernels::{Kernels, THREADS},
    matrix::{OnDevice, scoring, tensor, type_number},
};
use crate::{KnownPattern, MaskPattern, NOfM, Rounding, scoring::Scoring};

/// What became of a matrix on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "as `PrunedMatrix`, whose matrix stays where it is")]
pub struct DevicePruned {
    /// As [`PrunedMatrix::zeroed`](crate::PrunedMatrix::zeroed).
    pub zeroed: u64,
    /// As [`PrunedMatrix::fallback`](crate::PrunedMatrix::fallback).
    pub fallback: bool,
}

/// A matrix whose pruning is queued on a stream. The matrix must not be used before
/// [`finish`](Self::finish) has returned.
#[must_use = "scores that cannot be ranked are found by `finish`"]
pub struct PendingPrune<'a> {
    stream: Arc<CudaStream>,
    scoring: Scoring<'a>,
    /// Nothing if all is done.
    enqueued: Option<OnDevice>,
    pruned: DevicePruned,
}

impl std::fmt::Debug for PendingPrune<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingPrune").field("pruned", &self.pruned).finish_non_exhaustive()
    }
}

impl PendingPrune<'_> {
    /// Waits for the matrix, which the caller passes again.
    ///
    /// # Errors
    /// As [`ScoreKernels::prune_matrix`]; no weight of the matrix is then of any use.
    pub fn finish(self, weights: &CudaView<'_, u8>) -> Result<DevicePruned, Error> {
        if let Some(enqueued) = &self.enqueued {
            enqueued.check(&self.scoring, &self.stream, weights)?;
        }
        Ok(self.pruned)
    }
}

impl ScoreKernels {
    /// Zeroes the weights that matter least, in place: [`prune_matrix`](crate::prune_matrix) for a
    /// matrix on the device, whose bytes are row after row as in a checkpoint.
    ///
    /// The work runs on `stream`, and is waited for.
    ///
    /// # Errors
    /// As the CPU's, with the same row and column; or if the bytes are not as many as `linear` and
    /// `dtype` say, or the driver fails. What is in the matrix after an error is not said.
    #[expect(clippy::too_many_arguments, reason = "those of the CPU's, and where it is")]
    pub fn prune_matrix(
        &self,
        stream: &Arc<CudaStream>,
        weights: &mut CudaViewMut<'_, u8>,
        dtype: Dtype,
        linear: &LinearView<'_>,
        ratio: Sparsity,
        scorer: &dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) -> Result<DevicePruned, Error> {
        self.enqueue_prune(stream, weights, dtype, linear, ratio, scorer, pattern, rounding)?
            .finish(&weights.as_view())
    }

    /// Queues on `stream` what [`prune_matrix`](Self::prune_matrix) does, without waiting for it
    /// unless the matrix must be left to the CPU.
    ///
    /// # Errors
    /// As [`prune_matrix`](Self::prune_matrix), but that scores are not looked at yet.
    #[expect(clippy::too_many_arguments, reason = "those of the CPU's, and where it is")]
    pub fn enqueue_prune<'a>(
        &self,
        stream: &Arc<CudaStream>,
        weights: &mut CudaViewMut<'_, u8>,
        dtype: Dtype,
        linear: &LinearView<'a>,
        ratio: Sparsity,
        scorer: &'a dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) -> Result<PendingPrune<'a>, Error> {
        let scoring = scoring(weights.len(), dtype, linear, scorer)?;
        let LinearView { rows, cols, .. } = *linear;
        let zeroed = match pattern.known() {
            Some(KnownPattern::PerRow) => rounding.total(rows, cols, ratio),
            Some(KnownPattern::NOfM { n, m }) => {
                let groups = NOfM::new(n, m)?;
                let each = cols / groups.m() * groups.n() + groups.of(cols % groups.m());
                rows as u64 * each as u64
            }
            None => 0,
        };
        let (fallback, stream) = (scoring.idle, Arc::clone(stream));
        let pruned = DevicePruned { zeroed, fallback };
        if weights.is_empty() {
            return Ok(PendingPrune { stream, scoring, enqueued: None, pruned });
        }
        if let Some(pattern) = pattern.known()
            && let Some(mut matrix) = OnDevice::new(&scoring, &stream, weights)?
            && let Some(launch) =
                Launch::new(&self.0, &scoring, &stream, weights, groups_of(pattern)?)
        {
            let quotas = rounding.quotas(rows, cols, ratio);
            launch.enqueue(&stream, weights, &mut matrix, quotas)?;
            return Ok(PendingPrune { stream, scoring, enqueued: Some(matrix), pruned });
        }
        let tensor = tensor(&stream, weights, dtype, linear)?;
        let done = crate::prune_matrix(tensor, linear, ratio, scorer, pattern, rounding)?;
        stream.memcpy_htod(done.tensor.bytes(), weights).tried("take a pruned matrix")?;
        stream.synchronize().tried("finish what was asked of it")?;
        let pruned = DevicePruned { zeroed: done.zeroed, fallback };
        Ok(PendingPrune { stream, scoring, enqueued: None, pruned })
    }
}

/// The groups of a pattern; `None` of whole rows.
fn groups_of(pattern: KnownPattern) -> Result<Option<NOfM>, crate::Error> {
    match pattern {
        KnownPattern::PerRow => Ok(None),
        KnownPattern::NOfM { n, m } => NOfM::new(n, m).map(Some),
    }
}

/// A kernel and how it is cut into blocks.
struct Launch<'a> {
    function: &'a CudaFunction,
    blocks: u32,
    shared_bytes: u32,
    kind: Kind,
    type_number: u32,
}

/// The kernels by their arguments.
enum Kind {
    /// Segments of `width` columns, of one quota each.
    Segments { width: u32, groups: Option<NOfM> },
    /// Groups that a thread has whole.
    SmallGroups { groups: NOfM },
    /// Groups that a block has whole, as many of them as it has threads for.
    Groups { groups: NOfM, blocks_a_row: u32 },
}

impl<'a> Launch<'a> {
    /// `None` if the matrix needs more blocks than a grid has, or its weights must be decoded.
    fn new(
        kernels: &'a Kernels,
        scoring: &Scoring<'_>,
        stream: &CudaStream,
        weights: &CudaViewMut<'_, u8>,
        groups: Option<NOfM>,
    ) -> Option<Self> {
        let LinearView { rows, cols, .. } = scoring.linear;
        let (start, _reading) = weights.device_ptr(stream);
        let aligned = |bytes: usize| (start | bytes as u64).is_multiple_of(16);
        let row_aligned = aligned(scoring.row_bytes());
        let float = scoring.float()?;
        let type_number = type_number(float);
        let blocks = |count: usize| u32::try_from(count).ok().filter(|&n| n <= i32::MAX as u32);
        match groups {
            Some(groups)
                if row_aligned && cols.is_multiple_of(8) && matches!(groups.m(), 2 | 4 | 8) =>
            {
                Some(Self {
                    function: kernels.n_of_m.of(float),
                    blocks: blocks((rows * cols / 8).div_ceil(THREADS))?,
                    shared_bytes: 0,
                    kind: Kind::SmallGroups { groups },
                    type_number,
                })
            }
            Some(groups) if groups.m() <= THREADS => {
                let blocks_a_row = cols.div_ceil(THREADS / groups.m() * groups.m());
                Some(Self {
                    function: &kernels.n_of_m_any,
                    blocks: blocks(rows.checked_mul(blocks_a_row)?)?,
                    shared_bytes: 0,
                    kind: Kind::Groups { groups, blocks_a_row: blocks(blocks_a_row)? },
                    type_number,
                })
            }
            groups => {
                // A group wider than the row is a segment that is not whole.
                let width = groups.map_or(cols, |groups| groups.m().min(cols + 1));
                let keys = width.min(cols).div_ceil(4) * 16;
                let (function, shared_bytes) = if keys > kernels.shared_bytes {
                    (&kernels.mask_long, 0)
                } else if row_aligned && aligned(width.min(cols) * float.size()) {
                    (kernels.mask.of(float), keys)
                } else {
                    (&kernels.mask_any, keys)
                };
                Some(Self {
                    function,
                    blocks: blocks(rows.checked_mul(cols.div_ceil(width))?)?,
                    shared_bytes: u32::try_from(shared_bytes).ok()?,
                    kind: Kind::Segments { width: blocks(width)?, groups },
                    type_number,
                })
            }
        }
    }

    fn enqueue(
        &self,
        stream: &CudaStream,
        weights: &mut CudaViewMut<'_, u8>,
        matrix: &mut OnDevice,
        quotas: crate::rounding::Quotas,
    ) -> Result<(), Error> {
        let config = LaunchConfig {
            grid_dim: (self.blocks, 1, 1),
            block_dim: (THREADS as u32, 1, 1),
            shared_mem_bytes: self.shared_bytes,
        };
        let OnDevice { factors, bad, rows, cols } = matrix;
        let (factors, rows, cols) = (&*factors, *rows, *cols);
        let counts = |groups: NOfM| {
            let last = groups.of(cols as usize % groups.m());
            // A count of weights in a group within a row, or of one that no row has.
            [groups.n(), groups.m(), last].map(|count| u32::try_from(count).unwrap_or(u32::MAX))
        };
        let mut launch = stream.launch_builder(self.function);
        launch.arg(weights).arg(factors).arg(bad);
        let launched = match self.kind {
            Kind::Segments { width, groups } => {
                let [quota, one_more, last] = match groups {
                    Some(groups) => {
                        let [n, _, last] = counts(groups);
                        [n, 0, last]
                    }
                    None => [quotas.each as u32, quotas.one_more as u32, 0],
                };
                launch.arg(&self.type_number).arg(&cols).arg(&width);
                launch.arg(&quota).arg(&one_more).arg(&last);
                // SAFETY: as `mask.cu` has them. Weights, factors and words are as many as the
                // rows and columns say, whose numbers fit.
                unsafe { launch.launch(config) }
            }
            Kind::SmallGroups { groups } => {
                let [n, m, _] = counts(groups);
                let eights = u64::from(rows) * u64::from(cols / 8);
                launch.arg(&cols).arg(&eights).arg(&n).arg(&m);
                // SAFETY: as `n_of_m.cu` has them; the rest as above.
                unsafe { launch.launch(config) }
            }
            Kind::Groups { groups, blocks_a_row } => {
                let [n, m, last] = counts(groups);
                launch.arg(&self.type_number).arg(&cols).arg(&blocks_a_row);
                launch.arg(&n).arg(&m).arg(&last);
                // SAFETY: as `n_of_m.cu` has them; the rest as above.
                unsafe { launch.launch(config) }
            }
        };
        launched.tried("start a mask kernel")?;
        Ok(())
    }
}
