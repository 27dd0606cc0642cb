//! A tensor's numbers, wherever it is.

use candle_core::{DType, Device, Result, Tensor};

/// The numbers of a tensor in `f32` and row-major order, in the host's memory.
pub(crate) fn on_host(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}
