//! Where forward passes run.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moeprune_core::{Dtype, TensorBytes, encoding::Float};

#[cfg(feature = "cuda")]
use crate::cuda::Transfers;
use crate::{
    Error,
    buffers::Buffers,
    dtype::{candle_dtype, stored_dtype},
};

/// The device that forward passes run on, and the type they compute in.
///
/// [`cpu`](Self::cpu) is the default everywhere. Weights are read from a
/// [`TensorSource`](moeprune_core::TensorSource) and brought to the device in the type they are
/// stored in, codes decoded on the host into the type that is computed in; on the CPU in f32, for which there is code of its own, they are
/// packed for its products instead: bf16 as it is, all else in f32.
///
/// Cheap to clone; clones share the device's staging memory, and on the CPU the memory of experts that went.
///
/// ```
/// use moeprune_model::Compute;
///
/// let compute = Compute::cpu();
/// assert!(compute.device().is_cpu());
/// # #[cfg(not(feature = "cuda"))]
/// assert!(Compute::cuda(0).is_err()); // this build has no CUDA
/// ```
#[derive(Debug, Clone)]
pub struct Compute {
    device: Device,
    dtype: DType,
    buffers: Arc<Buffers>,
    /// Whether products of bf16 weights are by tiles.
    tiles: bool,
    /// Whether the memory of weights that go is kept for others.
    keeps_buffers: bool,
    #[cfg(feature = "cuda")]
    transfers: Option<Arc<Transfers>>,
}

impl Compute {
    /// The CPU, in f32.
    #[must_use]
    pub fn cpu() -> Self {
        Self::cpu_in(DType::F32)
    }

    /// The CPU in another type than f32, through candle's own operations: what a GPU does, slowly.
    #[must_use]
    pub fn cpu_in(dtype: DType) -> Self {
        Self {
            device: Device::Cpu,
            dtype,
            buffers: Arc::default(),
            tiles: false,
            keeps_buffers: false,
            #[cfg(feature = "cuda")]
            transfers: None,
        }
    }

    /// The CPU in f32, products with bf16 weights by its tiles (AMX): about twice as fast, as exact, and with
    /// other last bits, which processors without tiles do not give.
    ///
    /// # Errors
    /// [`Error::NoTiles`] if this processor has none.
    pub fn cpu_by_tiles() -> Result<Self, Error> {
        if moeprune_linalg::has_tiles() {
            Ok(Self { tiles: true, ..Self::cpu() })
        } else {
            Err(Error::NoTiles)
        }
    }

    /// CUDA device number `ordinal`, in bf16: products in bf16; norms, softmax and routing in f32.
    ///
    /// # Errors
    /// [`Error::NoCuda`] if this build has no CUDA, or there is no such device.
    pub fn cuda(ordinal: usize) -> Result<Self, Error> {
        Self::cuda_in(ordinal, DType::BF16)
    }

    /// As [`cuda`](Self::cuda), in another type: f32 to compare with the CPU.
    ///
    /// # Errors
    /// As [`cuda`](Self::cuda).
    #[cfg(feature = "cuda")]
    pub fn cuda_in(ordinal: usize, dtype: DType) -> Result<Self, Error> {
        let (device, transfers) = crate::cuda::open(ordinal)?;
        let transfers = Some(Arc::new(transfers));
        Ok(Self { device, dtype, transfers, ..Self::cpu() })
    }

    /// As [`cuda`](Self::cuda), in another type: f32 to compare with the CPU.
    ///
    /// # Errors
    /// As [`cuda`](Self::cuda).
    #[cfg(not(feature = "cuda"))]
    pub fn cuda_in(_ordinal: usize, _dtype: DType) -> Result<Self, Error> {
        Err(Error::NoCuda(
            "this build has no CUDA; build with `--features cuda`, or run on the CPU".into(),
        ))
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of hidden states.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// What results depend on beside the device, as text: the type of hidden states, `f32` or `bf16`, or `f32 by tiles`.
    #[must_use]
    pub fn arithmetic(&self) -> String {
        let by = if self.tiles { " by tiles" } else { "" };
        format!("{}{by}", self.dtype.as_str())
    }

    /// Whether products of bf16 weights are by tiles.
    pub(crate) fn uses_tiles(&self) -> bool {
        self.tiles
    }

    /// Whether weights are held in the type they are stored in, and can be changed where they lie
    /// ([`Expert::weight`](crate::Expert::weight)): on a device. On the CPU in f32 they are packed,
    /// and activations are handled as slices.
    #[must_use]
    pub fn holds_stored(&self) -> bool {
        !(self.device.is_cpu() && self.dtype == DType::F32)
    }

    /// Bytes of the device's memory that are free; `None` on the CPU.
    ///
    /// # Errors
    /// If the driver does not tell.
    pub fn free_memory(&self) -> Result<Option<u64>, Error> {
        #[cfg(feature = "cuda")]
        if let Some(transfers) = &self.transfers {
            return transfers.free_memory().map(Some);
        }
        Ok(None)
    }

    /// The type that codes are decoded into: the one that is computed in, or f32 where no weight is
    /// stored in that.
    #[must_use]
    pub fn decoded_type(&self) -> Dtype {
        stored_dtype(self.dtype).map_or(Dtype::F32, Float::dtype)
    }

    /// The same for weights that are read one after the other in the same shapes: their memory is kept for the
    /// next.
    pub(crate) fn keeping_buffers(&self) -> Self {
        Self { keeps_buffers: true, ..self.clone() }
    }

    /// Where memory of weights is kept, if it is.
    pub(crate) fn kept_buffers(&self) -> Option<&Arc<Buffers>> {
        self.keeps_buffers.then_some(&self.buffers)
    }

    /// Tensors of one type and width, one below the other, on the device, `[Σ rows, …]`.
    pub(crate) fn upload(&self, parts: &[TensorBytes<'_>]) -> Result<Tensor, Error> {
        #[cfg(feature = "cuda")]
        if let Some(transfers) = &self.transfers {
            return transfers.upload(parts);
        }
        let tensors = parts
            .iter()
            .map(|part| {
                let dtype = candle_dtype(part.dtype())
                    .map_err(|error| candle_core::Error::Msg(error.to_string()))?;
                Ok(Tensor::from_raw_buffer(part.bytes(), dtype, part.shape(), &self.device)?)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        match &tensors[..] {
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 0)?),
        }
    }

    /// A tensor's bytes, back from the device: what [`Expert::weight`](crate::Expert::weight) or
    /// [`LayerTrunk::weight`](crate::LayerTrunk::weight) holds. Waits for the work on it that was
    /// begun before.
    ///
    /// # Errors
    /// If the tensor is not contiguous or not of a float type, or the copy fails.
    pub fn download(&self, tensor: &Tensor) -> Result<TensorBytes<'static>, Error> {
        let dtype = stored_dtype(tensor.dtype())
            .ok_or_else(|| {
                candle_core::Error::Msg(format!("{:?} is no weight's type", tensor.dtype()))
            })?
            .dtype();
        #[cfg(feature = "cuda")]
        let bytes = match &self.transfers {
            Some(transfers) => transfers.download(tensor)?,
            None => host_bytes(tensor)?,
        };
        #[cfg(not(feature = "cuda"))]
        let bytes = host_bytes(tensor)?;
        TensorBytes::new(dtype, tensor.dims(), bytes)
            .map_err(|error| candle_core::Error::Msg(error.to_string()).into())
    }
}

fn host_bytes(tensor: &Tensor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(tensor.elem_count() * tensor.dtype().size_in_bytes());
    tensor.write_bytes(&mut bytes)?;
    Ok(bytes)
}
