//! This crate's kernels on candle's tensors (`kernels/layer.cu`).
#![expect(unsafe_code, reason = "kernels are launched")]

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, InplaceOp1, InplaceOp3, Layout, Result, Shape,
    Tensor,
    backend::BackendStorage as _,
    cuda_backend::{CudaDType, WrapErr as _},
};
use cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg as _};
use half::bf16;

use crate::Error;

const PTX: &str = include_str!("../../kernels/layer.ptx");
const MODULE: &str = "moeprune-model layer";

/// Threads of a block.
const THREADS: u32 = 256;

/// Replaces attention scores, `[heads, queries, keys]` or with several heads' queries one after the
/// other in the middle, by the shares that the keys get. The first query stands at key `first`; a
/// query sees itself and what is before it, `window` keys at most.
pub(crate) fn masked_softmax(
    scores: &Tensor,
    queries: usize,
    first: usize,
    window: Option<usize>,
    scale: f64,
) -> std::result::Result<(), Error> {
    let queries = queries as u32;
    let (first, window) = (first as u32, window.unwrap_or(0) as u32);
    Ok(scores.inplace_op1(&MaskedSoftmax { queries, first, window, scale: scale as f32 })?)
}

/// `silu(gate) ∘ up` for rows that hold `gate` and then `up`.
pub(crate) fn gated_silu(gate_up: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(gate_up.contiguous()?.apply_op1_no_bwd(&GatedSilu)?)
}

/// Adds `gates[i] · output[i]` to row `rows[i]` of `sum`; rows are distinct.
pub(crate) fn add_gated_rows(
    sum: &Tensor,
    output: &Tensor,
    rows: &[u32],
    gates: &[f32],
) -> std::result::Result<(), Error> {
    let places: Vec<u32> =
        rows.iter().zip(gates).flat_map(|(&row, gate)| [row, gate.to_bits()]).collect();
    let places = Tensor::from_vec(places, (rows.len(), 2), sum.device())?;
    Ok(sum.inplace_op3(&output.contiguous()?, &places, &AddGatedRows)?)
}

struct MaskedSoftmax {
    queries: u32,
    first: u32,
    window: u32,
    scale: f32,
}

impl InplaceOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked_softmax"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("the CPU takes a mask and candle's softmax")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        match storage.dtype() {
            DType::BF16 => self.launch::<bf16>("masked_softmax_bf16", storage, layout),
            DType::F32 => self.launch::<f32>("masked_softmax_f32", storage, layout),
            other => unsupported(other),
        }
    }
}

impl MaskedSoftmax {
    fn launch<T: CudaDType + DeviceRepr>(
        &self,
        name: &str,
        storage: &mut CudaStorage,
        layout: &Layout,
    ) -> Result<()> {
        let (start, end) = contiguous(layout)?;
        let keys = layout.dims().last().copied().unwrap_or(0);
        if keys == 0 || start == end {
            return Ok(());
        }
        let device = storage.device().clone();
        let kernel = device.get_or_load_custom_func(name, MODULE, PTX)?;
        let mut scores = storage.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        let rows = (end - start) / keys;
        let keys = keys as u32;
        let mut arguments = kernel.builder();
        arguments.arg(&mut scores);
        arguments.arg(&self.queries).arg(&keys).arg(&self.first).arg(&self.window).arg(&self.scale);
        // SAFETY: the kernel's parameters, in their order and types; a block stays in its row of
        // `scores`, which has `rows` of them.
        unsafe { arguments.launch(grid(rows, 1)) }.w()?;
        Ok(())
    }
}

struct GatedSilu;

impl CustomOp1 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated_silu"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("the CPU takes candle's operations")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match storage.dtype() {
            DType::BF16 => silu_as::<bf16>("gated_silu_bf16", storage, layout),
            DType::F32 => silu_as::<f32>("gated_silu_f32", storage, layout),
            other => unsupported(other),
        }
    }
}

fn silu_as<T: CudaDType + DeviceRepr>(
    name: &str,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let (start, end) = contiguous(layout)?;
    let (rows, both) = layout.shape().dims2()?;
    let inner = both / 2;
    let device = storage.device().clone();
    let kernel = device.get_or_load_custom_func(name, MODULE, PTX)?;
    let halves = storage.as_cuda_slice::<T>()?.slice(start..end);
    // SAFETY: the kernel writes all of it.
    let mut out = unsafe { device.alloc::<T>(rows * inner)? };
    if rows * inner > 0 {
        let width = inner as u32;
        let mut arguments = kernel.builder();
        arguments.arg(&halves).arg(&mut out).arg(&width);
        // SAFETY: the kernel's parameters, in their order and types; row and column stay inside
        // both matrices.
        unsafe { arguments.launch(grid(rows, inner)) }.w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device), Shape::from((rows, inner))))
}

struct AddGatedRows;

impl InplaceOp3 for AddGatedRows {
    fn name(&self) -> &'static str {
        "add_gated_rows"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        candle_core::bail!("the CPU takes candle's operations")
    }

    fn cuda_fwd(
        &self,
        sum: &mut CudaStorage,
        sum_layout: &Layout,
        output: &CudaStorage,
        output_layout: &Layout,
        places: &CudaStorage,
        places_layout: &Layout,
    ) -> Result<()> {
        let (more, at) = ((output, output_layout), (places, places_layout));
        match (sum.dtype(), output.dtype()) {
            (DType::BF16, DType::BF16) => {
                add_as::<bf16>("add_gated_rows_bf16", sum, sum_layout, more, at)
            }
            (DType::F32, DType::F32) => {
                add_as::<f32>("add_gated_rows_f32", sum, sum_layout, more, at)
            }
            (other, _) => unsupported(other),
        }
    }
}

fn add_as<T: CudaDType + DeviceRepr>(
    name: &str,
    sum: &mut CudaStorage,
    sum_layout: &Layout,
    (output, output_layout): (&CudaStorage, &Layout),
    (places, places_layout): (&CudaStorage, &Layout),
) -> Result<()> {
    let (start, end) = contiguous(sum_layout)?;
    let (from, to) = contiguous(output_layout)?;
    let (first, last) = contiguous(places_layout)?;
    let (rows, width) = output_layout.shape().dims2()?;
    if rows * width == 0 {
        return Ok(());
    }
    let device = sum.device().clone();
    let kernel = device.get_or_load_custom_func(name, MODULE, PTX)?;
    let mut sum = sum.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
    let output = output.as_cuda_slice::<T>()?.slice(from..to);
    let places = places.as_cuda_slice::<u32>()?.slice(first..last);
    let columns = width as u32;
    let mut arguments = kernel.builder();
    arguments.arg(&mut sum).arg(&output).arg(&places).arg(&columns);
    // SAFETY: the kernel's parameters, in their order and types; the rows named are rows of `sum`,
    // which the router's token indices are, and each is named once.
    unsafe { arguments.launch(grid(rows, width)) }.w()?;
    Ok(())
}

/// Blocks of (a row, [`THREADS`] columns).
fn grid(rows: usize, columns: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (rows as u32, (columns as u32).div_ceil(THREADS), 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

fn contiguous(layout: &Layout) -> Result<(usize, usize)> {
    layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("a tensor with gaps cannot be worked on".into()))
}

fn unsupported<T>(dtype: DType) -> Result<T> {
    candle_core::bail!("devices compute in bf16 or f32, not in {dtype:?}")
}
