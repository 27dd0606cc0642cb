//! The differentiable operations that training spends its time in.
//!
//! Each is a candle custom operation with its own backward pass. The ones that candle derives
//! allocate a whole tensor for each expert, or have no backward pass at all; written for their
//! shapes, training is several times faster.

pub mod attention;
pub mod cross_entropy;
pub mod experts;
pub mod linear;
pub mod rms_norm;

mod exponential;
mod product;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use std::ops::Deref;

/// The values of a contiguous argument of an operation.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("this operation takes contiguous tensors");
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// A tensor held open for reading.
struct Reader<'a, S> {
    storage: S,
    layout: &'a Layout,
}

/// Opens `tensor`; the lock lasts as long as the reader.
fn read(tensor: &Tensor) -> Reader<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Reader { storage, layout }
}

impl<S: Deref<Target = Storage>> Reader<'_, S> {
    fn values(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => bail!("this operation runs on the CPU only"),
        }
    }
}
