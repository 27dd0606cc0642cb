//! What a CUDA device and its link do at most.
#![expect(unsafe_code, reason = "page-locked memory comes as it is")]

use cudarc::driver::PinnedHostSlice;

use super::ceiling::{Ceiling, best};
use moeprune::{Error, Execution, timed::synchronize};

/// Bytes that are copied on the device at a time.
const COPIED_ON_DEVICE: usize = 1 << 30;
/// Bytes that cross the link at a time.
const STAGED: usize = 256 << 20;

/// Copies on the device, to it and from it; `None` on the CPU.
pub(super) fn links(execution: &Execution) -> Result<Option<[Ceiling; 3]>, Error> {
    let device = execution.compute().device();
    let Ok(cuda) = device.as_cuda_device() else { return Ok(None) };
    let stream = cuda.cuda_stream();
    let wrap = |error| Error::from(candle_core::Error::wrap(error));

    let from = stream.alloc_zeros::<u8>(COPIED_ON_DEVICE).map_err(wrap)?;
    let mut to = stream.alloc_zeros::<u8>(COPIED_ON_DEVICE).map_err(wrap)?;
    let seconds = best(&mut || {
        stream.memcpy_dtod(&from, &mut to).map_err(wrap)?;
        Ok(synchronize(device)?)
    })?;
    drop((from, to));
    let how = "1 GiB from device memory to device memory, read and written";
    let copy = Ceiling::bytes("device copy", how, 2 * COPIED_ON_DEVICE as u64, seconds);

    // SAFETY: it is written before it is read.
    let host = unsafe { stream.context().alloc_pinned::<u8>(STAGED) };
    let mut host: PinnedHostSlice<u8> = host.map_err(wrap)?;
    host.as_mut_slice().map_err(wrap)?.fill(1);
    let mut there = stream.alloc_zeros::<u8>(STAGED).map_err(wrap)?;
    let seconds = best(&mut || {
        stream.memcpy_htod(&host, &mut there).map_err(wrap)?;
        Ok(synchronize(device)?)
    })?;
    let how = "256 MiB from page-locked memory";
    let up = Ceiling::bytes("host to device", how, STAGED as u64, seconds);
    let seconds = best(&mut || {
        stream.memcpy_dtoh(&there, &mut host).map_err(wrap)?;
        Ok(synchronize(device)?)
    })?;
    let how = "256 MiB to page-locked memory";
    let down = Ceiling::bytes("device to host", how, STAGED as u64, seconds);
    Ok(Some([copy, up, down]))
}

/// The device's own name.
pub(super) fn name(execution: &Execution) -> Option<String> {
    let device = execution.compute().device().as_cuda_device().ok()?;
    device.cuda_stream().context().name().ok()
}
