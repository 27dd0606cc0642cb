//! CUDA devices: opening one, bringing weights to it and back, and kernels of our own.
#![expect(unsafe_code, reason = "a setting of the driver that has no safe call")]

mod layer_kernels;
mod transfers;

pub(crate) use layer_kernels::{add_gated_rows, gated_silu, masked_softmax};
pub(crate) use transfers::Transfers;

use candle_core::{CudaDevice, Device};
use cudarc::driver::{result, sys::CUmemPool_attribute};

use crate::Error;

/// The device, with a stream of its own for work, and what moves weights to and from it.
pub(crate) fn open(ordinal: usize) -> Result<(Device, Transfers), Error> {
    let failed = |error: &dyn std::fmt::Display| {
        // What follows the first line is a backtrace.
        let error = error.to_string();
        let error = error.lines().next().unwrap_or_default();
        Error::NoCuda(format!(
            "device {ordinal} could not be opened ({error}); `nvidia-smi` lists the devices there \
             are, and the driver must be for CUDA 13.0 or newer"
        ))
    };
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| failed(&e))?;
    let cuda = device.as_cuda_device().map_err(|e| failed(&e))?;
    keep_freed_memory(cuda);
    let transfers = Transfers::new(cuda).map_err(|e| failed(&e))?;
    Ok((device, transfers))
}

/// Lets the process keep device memory that it frees. By default it goes back to the system whenever
/// the device is waited for, which is several times an expert, and the next allocation has to map
/// it again. A driver that will not have it is only slower.
fn keep_freed_memory(device: &CudaDevice) {
    let stream = device.cuda_stream();
    let mut threshold = u64::MAX;
    // SAFETY: the context is of this device; the pool is its own and lives as long; the attribute is
    // a u64, which is read before the call returns.
    let _ = unsafe {
        result::device::get_default_mem_pool(stream.context().cu_device()).and_then(|pool| {
            result::mem_pool::set_attribute(
                pool,
                CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut threshold).cast(),
            )
        })
    };
}
