//! Weights on their way to the device and back.
//!
//! Each way has a stream of its own and two page-locked buffers: while one is filled or emptied by
//! the processor, the other is copied. cudarc records on each allocation who wrote and who read
//! it, so that work on another stream waits for a copy, and a copy for the work before it.
#![expect(unsafe_code, reason = "cudarc hands out memory that is not set")]

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CudaDevice, CudaStorage, DType, Shape, Storage, Tensor, cuda_backend::CudaDType, op::BackpropOp,
};
use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, DeviceRepr, DriverError, HostSlice, PinnedHostSlice,
    SyncOnDrop, ValidAsZeroBits, sys,
};
use half::{bf16, f16};
use moeprune_core::TensorBytes;
use rayon::prelude::*;

use crate::{Error, dtype::candle_dtype};

/// Bytes of a staging buffer: enough for a copy to run at full speed, few enough not to matter.
const STAGED: usize = 32 << 20;

/// Pieces in which several threads copy to and from a staging buffer.
const PIECE: usize = 1 << 20;

/// Copies between host and device through page-locked memory.
#[derive(Debug)]
pub(crate) struct Transfers {
    device: CudaDevice,
    up: Mutex<Lane>,
    down: Mutex<Lane>,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    stream: Arc<CudaStream>,
    buffers: [PinnedHostSlice<u8>; 2],
}

impl Lane {
    /// `flags` are those of `cuMemHostAlloc`.
    fn new(device: &CudaDevice, flags: u32) -> Result<Self, DriverError> {
        let stream = device.cuda_stream().context().new_stream()?;
        // SAFETY: the bytes are written before they are read, by the processor on the way up and
        // by the device on the way down.
        let buffer = || unsafe { stream.context().alloc_pinned_with_flags::<u8>(STAGED, flags) };
        let buffers = [buffer()?, buffer()?];
        Ok(Self { stream, buffers })
    }
}

impl Transfers {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self, DriverError> {
        Ok(Self {
            // The processor only writes to it: its caches need not know.
            up: Mutex::new(Lane::new(device, sys::CU_MEMHOSTALLOC_WRITECOMBINED)?),
            down: Mutex::new(Lane::new(device, 0)?),
            device: device.clone(),
        })
    }

    /// Bytes that are free on the device.
    pub(crate) fn free_memory(&self) -> Result<u64, Error> {
        let stream = self.device.cuda_stream();
        let (free, _) = stream.context().mem_get_info().map_err(driver)?;
        Ok(free as u64)
    }

    /// Tensors of one type and width, one below the other, in one allocation. The copy may still
    /// be under way on return; work on the tensor waits for it.
    pub(crate) fn upload(&self, parts: &[TensorBytes<'_>]) -> Result<Tensor, Error> {
        let Some(first) = parts.first() else {
            return Err(candle_core::Error::Msg("nothing to upload".into()).into());
        };
        let mut shape = first.shape().to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows = parts.iter().map(|part| part.shape()[0]).sum();
        }
        match candle_dtype(first.dtype()) {
            Ok(DType::BF16) => self.upload_as::<bf16>(parts, shape),
            Ok(DType::F16) => self.upload_as::<f16>(parts, shape),
            Ok(_) => self.upload_as::<f32>(parts, shape),
            Err(error) => Err(candle_core::Error::Msg(error.to_string()).into()),
        }
    }

    fn upload_as<T: CudaDType + DeviceRepr>(
        &self,
        parts: &[TensorBytes<'_>],
        shape: Vec<usize>,
    ) -> Result<Tensor, Error> {
        let mut lane = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        let Lane { stream, buffers } = &mut *lane;
        let elements = shape.iter().product();
        // SAFETY: all of it is written below before the tensor exists.
        let mut slice: CudaSlice<T> = unsafe { stream.alloc(elements) }.map_err(driver)?;
        let bytes = elements * size_of::<T>();
        // SAFETY: bytes can be had of any such element, and it is as many.
        let view = unsafe { slice.transmute_mut::<u8>(bytes) };
        let mut view = view.ok_or_else(|| misfit(bytes, elements))?;
        let mut done = 0;
        let chunks = parts.iter().flat_map(|part| part.bytes().chunks(STAGED));
        for (turn, chunk) in chunks.enumerate() {
            let buffer = &mut buffers[turn % 2];
            // Waits until the copy from it two turns ago is over.
            copy(chunk, &mut buffer.as_mut_slice().map_err(driver)?[..chunk.len()]);
            let mut to = view.slice_mut(done..done + chunk.len());
            stream.memcpy_htod(&Part { buffer, len: chunk.len() }, &mut to).map_err(driver)?;
            done += chunk.len();
        }
        if done != bytes {
            return Err(misfit(bytes, done));
        }
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            Shape::from(shape),
            BackpropOp::none(),
            false,
        ))
    }

    /// The bytes of a contiguous tensor, once all work on it that was begun before is done.
    pub(crate) fn download(&self, tensor: &Tensor) -> Result<Vec<u8>, Error> {
        match tensor.dtype() {
            DType::BF16 => self.download_as::<bf16>(tensor),
            DType::F16 => self.download_as::<f16>(tensor),
            _ => self.download_as::<f32>(tensor),
        }
    }

    fn download_as<T: CudaDType + DeviceRepr + ValidAsZeroBits>(
        &self,
        tensor: &Tensor,
    ) -> Result<Vec<u8>, Error> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            let message = "only a contiguous tensor on the device can be downloaded";
            return Err(candle_core::Error::Msg(message.into()).into());
        };
        let view = storage.as_cuda_slice::<T>()?.slice(start..end);
        let bytes = (end - start) * size_of::<T>();
        // SAFETY: bytes can be had of any such element, and it is as many.
        let view: Option<CudaView<'_, u8>> = unsafe { view.transmute(bytes) };
        let view = view.ok_or_else(|| misfit(bytes, end - start))?;
        let mut lane = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let Lane { stream, buffers } = &mut *lane;
        let mut out = vec![0; bytes];
        // One chunk is copied by the device while the one before it is taken out.
        let mut chunks = out.chunks_mut(STAGED);
        let mut under_way: Option<(&mut [u8], usize)> = None;
        let mut first = 0;
        for turn in 0.. {
            let next = chunks.next();
            if let Some(chunk) = &next {
                let (from, len) = (view.slice(first..first + chunk.len()), chunk.len());
                let mut to = Part { buffer: &mut buffers[turn % 2], len };
                stream.memcpy_dtoh(&from, &mut to).map_err(driver)?;
                first += len;
            }
            if let Some((chunk, place)) = under_way.take() {
                let len = chunk.len();
                copy(&buffers[place].as_slice().map_err(driver)?[..len], chunk);
            }
            match next {
                Some(chunk) => under_way = Some((chunk, turn % 2)),
                None => break,
            }
        }
        Ok(out)
    }
}

/// The first bytes of a staging buffer.
struct Part<'a> {
    buffer: &'a mut PinnedHostSlice<u8>,
    len: usize,
}

impl HostSlice<u8> for Part<'_> {
    fn len(&self) -> usize {
        self.len
    }

    unsafe fn stream_synced_slice<'a>(
        &'a self,
        stream: &'a CudaStream,
    ) -> (&'a [u8], SyncOnDrop<'a>) {
        // SAFETY: what the caller promises for the part holds for the whole, which is used only
        // as far as the part goes.
        let (whole, sync) = unsafe { self.buffer.stream_synced_slice(stream) };
        (&whole[..self.len], sync)
    }

    unsafe fn stream_synced_mut_slice<'a>(
        &'a mut self,
        stream: &'a CudaStream,
    ) -> (&'a mut [u8], SyncOnDrop<'a>) {
        // SAFETY: as above.
        let (whole, sync) = unsafe { self.buffer.stream_synced_mut_slice(stream) };
        (&mut whole[..self.len], sync)
    }
}

/// Copies on several threads: one core is slower than the link.
fn copy(from: &[u8], to: &mut [u8]) {
    to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| {
        to.copy_from_slice(from);
    });
}

fn driver(error: DriverError) -> Error {
    candle_core::Error::wrap(error).into()
}

fn misfit(expected: usize, got: usize) -> Error {
    candle_core::Error::Msg(format!("a copy of {expected} bytes does not fit {got}")).into()
}
