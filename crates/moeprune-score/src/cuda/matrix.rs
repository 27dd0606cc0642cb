//! A matrix on a device whose rows are about to be scored.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, CudaView, DevicePtr};
use moeprune_core::{Dtype, LinearView, TensorBytes, WeightScorer, encoding::Float};

use super::{Error, error::Tried};
use crate::{
    scoring::{RowBuffers, Scoring},
    storage::Storage,
};

/// Checks that `bytes` is the size of the matrix, and does what the CPU does before it looks at
/// weights.
pub(super) fn scoring<'a>(
    bytes: usize,
    dtype: Dtype,
    linear: &LinearView<'a>,
    scorer: &'a dyn WeightScorer,
) -> Result<Scoring<'a>, Error> {
    let LinearView { layer, id, rows, cols, .. } = *linear;
    let float = Float::of(dtype).ok_or(crate::Error::Dtype { layer, linear: id, dtype })?;
    let scoring = Scoring::of(Storage::Plain(float), linear, scorer)?;
    let expected = rows.saturating_mul(cols).saturating_mul(float.size());
    if bytes == expected {
        Ok(scoring)
    } else {
        Err(Error::Bytes { layer: linear.layer, linear: linear.id, expected, got: bytes })
    }
}

/// What every kernel that scores receives beside the weights.
#[derive(Debug)]
pub(super) struct OnDevice {
    /// One per column.
    pub(super) factors: CudaSlice<f32>,
    /// One per row, set where a score cannot be ranked.
    pub(super) bad: CudaSlice<u32>,
    pub(super) rows: u32,
    pub(super) cols: u32,
}

impl OnDevice {
    /// `None` where the CPU has to do it: weights that must be decoded, a scorer without factors, more rows or columns than a
    /// kernel counts, or weights at an address that is no multiple of their size. The matrix must
    /// not be empty: there is no room for nothing on a device.
    pub(super) fn new<Weights: DevicePtr<u8>>(
        scoring: &Scoring<'_>,
        stream: &Arc<CudaStream>,
        weights: &Weights,
    ) -> Result<Option<Self>, Error> {
        let (start, _reading) = weights.device_ptr(stream);
        if !scoring.float().is_some_and(|float| start.is_multiple_of(float.size() as u64)) {
            return Ok(None);
        }
        let count = |n: usize| u32::try_from(n).ok().filter(|&n| n <= i32::MAX as u32);
        let (Some(factors), Some(rows), Some(cols)) =
            (scoring.column_factors(), count(scoring.linear.rows), count(scoring.linear.cols))
        else {
            return Ok(None);
        };
        let factors = stream.clone_htod(factors).tried("take the factors of the columns")?;
        let bad = stream.alloc_zeros(scoring.linear.rows).tried("make room for a word per row")?;
        Ok(Some(Self { factors, bad, rows, cols }))
    }

    /// Waits for what was queued on `stream` and names the first score that cannot be ranked, as
    /// the CPU does. The kernels leave alone what is around such a score.
    pub(super) fn check(
        &self,
        scoring: &Scoring<'_>,
        stream: &Arc<CudaStream>,
        weights: &CudaView<'_, u8>,
    ) -> Result<(), Error> {
        let bad = to_host(stream, &self.bad)?;
        let Some(row) = bad.iter().position(|&bad| bad != 0) else {
            return Ok(());
        };
        let size = scoring.row_bytes();
        let bytes = to_host(stream, &weights.slice(row * size..(row + 1) * size))?;
        scoring.score(row, &bytes, &mut RowBuffers::default())?;
        Err(Error::Unconfirmed { layer: scoring.linear.layer, linear: scoring.linear.id, row })
    }
}

/// How kernels number the types.
pub(super) fn type_number(float: Float) -> u32 {
    match float {
        Float::F32 => 0,
        Float::F16 => 1,
        Float::Bf16 => 2,
    }
}

/// The matrix as the CPU's functions want it.
pub(super) fn tensor<Weights: DevicePtr<u8>>(
    stream: &Arc<CudaStream>,
    weights: &Weights,
    dtype: Dtype,
    linear: &LinearView<'_>,
) -> Result<TensorBytes<'static>, Error> {
    let bytes = to_host(stream, weights)?;
    Ok(TensorBytes::new(dtype, [linear.rows, linear.cols], bytes).expect("its size was checked"))
}

/// Copies to the host and waits for it.
pub(super) fn to_host<T, From>(stream: &Arc<CudaStream>, from: &From) -> Result<Vec<T>, Error>
where
    T: cudarc::driver::DeviceRepr,
    From: DevicePtr<T>,
{
    let values = stream.clone_dtoh(from).tried("copy results to the host")?;
    stream.synchronize().tried("finish what was asked of it")?;
    Ok(values)
}
