//! CUDA devices: opening one, bringing weights to it and back, and kernels of our own.

mod layer_kernels;
mod transfers;

pub(crate) use layer_kernels::{add_gated_rows, gated_silu, masked_softmax};
pub(crate) use transfers::Transfers;

use candle_core::Device;

use crate::Error;

/// The device, with a stream of its own for work, and what moves weights to and from it.
pub(crate) fn open(ordinal: usize) -> Result<(Device, Transfers), Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::NoCuda(format!(
            "device {ordinal} could not be opened ({error}); `nvidia-smi` lists the devices there \
             are, and the driver must be for CUDA 13.0 or newer"
        ))
    };
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| failed(&e))?;
    let cuda = device.as_cuda_device().map_err(|e| failed(&e))?;
    let transfers = Transfers::new(cuda).map_err(|e| failed(&e))?;
    Ok((device, transfers))
}
