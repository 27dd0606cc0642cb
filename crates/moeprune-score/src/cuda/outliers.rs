//! Scores of a matrix on a device, added up and counted.

use std::sync::Arc;

use cudarc::driver::{
    CudaStream, CudaView, DeviceRepr, LaunchConfig, PushKernelArg, ValidAsZeroBits,
};
use moeprune_core::{Dtype, LinearView, WeightScorer};

use super::{
    Error, ScoreKernels,
    error::Tried,
    kernels::{ByType, THREADS},
    matrix::{OnDevice, scoring, tensor, to_host},
};
use crate::{ScoreSum, outliers::floor_f32, scoring::Scoring};

impl ScoreKernels {
    /// [`score_sum`](crate::score_sum) of a matrix on the device, equal to it to the last bit.
    ///
    /// # Errors
    /// As [`prune_matrix`](Self::prune_matrix), for the matrix and its scores.
    pub fn score_sum(
        &self,
        stream: &Arc<CudaStream>,
        weights: &CudaView<'_, u8>,
        dtype: Dtype,
        linear: &LinearView<'_>,
        scorer: &dyn WeightScorer,
    ) -> Result<ScoreSum, Error> {
        let scoring = scoring(weights.len(), dtype, linear, scorer)?;
        match each_row::<f64>(&self.0.score_sum, stream, weights, &scoring, None)? {
            Some(rows) => {
                let mut total = ScoreSum::default();
                for sum in rows {
                    total += ScoreSum { sum, count: linear.cols as u64 };
                }
                Ok(total)
            }
            None => Ok(crate::score_sum(&tensor(stream, weights, dtype, linear)?, linear, scorer)?),
        }
    }

    /// [`count_above`](crate::count_above) of a matrix on the device.
    ///
    /// # Errors
    /// As [`prune_matrix`](Self::prune_matrix), for the matrix and its scores.
    pub fn count_above(
        &self,
        stream: &Arc<CudaStream>,
        weights: &CudaView<'_, u8>,
        dtype: Dtype,
        linear: &LinearView<'_>,
        scorer: &dyn WeightScorer,
        threshold: f64,
    ) -> Result<u64, Error> {
        let scoring = scoring(weights.len(), dtype, linear, scorer)?;
        let floor = floor_f32(threshold);
        match each_row::<u32>(&self.0.count_above, stream, weights, &scoring, Some(floor))? {
            Some(rows) => Ok(rows.into_iter().map(u64::from).sum()),
            None => {
                let tensor = tensor(stream, weights, dtype, linear)?;
                Ok(crate::count_above(&tensor, linear, scorer, threshold)?)
            }
        }
    }
}

/// Runs a kernel that makes one number of each row; `None` where the CPU has to do it. No rows for
/// a Linear without the inputs it needs.
fn each_row<T: DeviceRepr + ValidAsZeroBits>(
    kernel: &ByType,
    stream: &Arc<CudaStream>,
    weights: &CudaView<'_, u8>,
    scoring: &Scoring<'_>,
    floor: Option<f32>,
) -> Result<Option<Vec<T>>, Error> {
    if scoring.idle {
        return Ok(Some(Vec::new()));
    }
    if weights.is_empty() {
        return Ok(None);
    }
    let Some(float) = scoring.float() else { return Ok(None) };
    let Some(mut matrix) = OnDevice::new(scoring, stream, weights)? else {
        return Ok(None);
    };
    let mut results =
        stream.alloc_zeros::<T>(scoring.linear.rows).tried("make room for a number per row")?;
    let config = LaunchConfig {
        grid_dim: (matrix.rows.div_ceil(THREADS as u32 / 32), 1, 1),
        block_dim: (THREADS as u32, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut launch = stream.launch_builder(kernel.of(float));
    launch.arg(weights).arg(&matrix.factors).arg(&mut matrix.bad).arg(&mut results);
    launch.arg(&matrix.rows).arg(&matrix.cols);
    if let Some(floor) = &floor {
        launch.arg(floor);
    }
    // SAFETY: as `outliers.cu` has them: a floor where rows are counted, `f64` where they are
    // summed. Weights, factors, words and results are as many as the rows and columns say.
    unsafe { launch.launch(config) }.tried("start a kernel for outliers")?;
    matrix.check(scoring, stream, weights)?;
    Ok(Some(to_host(stream, &results)?))
}
