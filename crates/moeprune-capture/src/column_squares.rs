//! Sums of squares of columns in f32, in an order that is the same on every device.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

/// The rows that are added up before their sum is.
const CHUNK: usize = 64;

/// The sum of squares of every column of `[tokens, features]`, as f32 on the tensor's device.
///
/// On a CUDA device a kernel of this crate does it, on the CPU its twin, with the same bits. What
/// they cannot read as it is (columns that are not next to each other, other types) is made f32
/// and contiguous first.
pub(crate) fn column_squares(input: &Tensor) -> Result<Tensor> {
    let known = matches!(input.dtype(), DType::F32 | DType::F16 | DType::BF16);
    let input = if known { input.clone() } else { input.to_dtype(DType::F32)? };
    input.contiguous()?.apply_op1_no_bwd(&ColumnSquares)
}

/// The sums of `rows`, of `features` values each: those of 64 rows one after the other, then
/// those sums one after the other, each operation rounded to f32.
pub(crate) fn column_squares_f32(rows: &[f32], features: usize) -> Vec<f32> {
    let mut sums = vec![0.0; features];
    let mut chunk_sums = vec![0.0; features];
    for chunk in rows.chunks((CHUNK * features).max(1)) {
        chunk_sums.fill(0.0);
        for row in chunk.chunks_exact(features) {
            for (sum, &x) in chunk_sums.iter_mut().zip(row) {
                *sum += x * x;
            }
        }
        for (sum, &of_chunk) in sums.iter_mut().zip(&chunk_sums) {
            *sum += of_chunk;
        }
    }
    sums
}

struct ColumnSquares;

/// Where a contiguous matrix begins, and its shape.
fn matrix(layout: &Layout) -> Result<(usize, usize, usize)> {
    let (tokens, features) = layout.shape().dims2()?;
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok((start, tokens, features)),
        None => bail!("sums of squares of columns need rows next to each other"),
    }
}

impl CustomOp1 for ColumnSquares {
    fn name(&self) -> &'static str {
        "column-squares"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (start, tokens, features) = matrix(layout)?;
        let range = start..start + tokens * features;
        let sums = match storage {
            CpuStorage::F32(values) => column_squares_f32(&values[range], features),
            CpuStorage::F16(values) => {
                let values: Vec<f32> = values[range].iter().map(|x| x.to_f32()).collect();
                column_squares_f32(&values, features)
            }
            CpuStorage::BF16(values) => {
                let values: Vec<f32> = values[range].iter().map(|x| x.to_f32()).collect();
                column_squares_f32(&values, features)
            }
            _ => bail!("sums of squares of columns are of floating-point values"),
        };
        Ok((CpuStorage::F32(sums), Shape::from(features)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (start, tokens, features) = matrix(layout)?;
        let sums = cuda::column_squares(storage, start, tokens, features)?;
        Ok((sums, Shape::from(features)))
    }
}

#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "kernels are started with bare arguments")]
mod cuda {
    use candle_core::{
        CudaDevice, CudaStorage, Error, Result,
        backend::BackendStorage as _,
        cuda_backend::{CudaDType, WrapErr as _},
    };
    use cudarc::driver::{CudaView, LaunchConfig, PushKernelArg as _};

    use super::CHUNK;

    const PTX: &str = include_str!("../kernels/column_squares.ptx");
    const MODULE: &str = "moeprune_column_squares";
    const THREADS: usize = 256;

    pub(super) fn column_squares(
        storage: &CudaStorage,
        start: usize,
        tokens: usize,
        features: usize,
    ) -> Result<CudaStorage> {
        let device = storage.device();
        let range = start..start + tokens * features;
        match storage.dtype() {
            candle_core::DType::BF16 => {
                let values = storage.as_cuda_slice::<half::bf16>()?.slice(range);
                sum(device, "column_squares_bf16", &values, tokens, features)
            }
            candle_core::DType::F16 => {
                let values = storage.as_cuda_slice::<half::f16>()?.slice(range);
                sum(device, "column_squares_f16", &values, tokens, features)
            }
            _ => {
                let values = storage.as_cuda_slice::<f32>()?.slice(range);
                sum(device, "column_squares_f32", &values, tokens, features)
            }
        }
    }

    fn sum<T: CudaDType>(
        device: &CudaDevice,
        name: &str,
        values: &CudaView<'_, T>,
        tokens: usize,
        features: usize,
    ) -> Result<CudaStorage> {
        let mut sums = device.alloc_zeros::<f32>(features)?;
        if tokens > 0 && features > 0 {
            let chunks = tokens.div_ceil(CHUNK);
            let blocks = features.div_ceil(THREADS);
            let mut partials = device.alloc_zeros::<f32>(chunks * features)?;
            let [tokens, features, chunks] = [tokens, features, chunks].map(u32::try_from);
            let (tokens, features, chunks) = (count(tokens)?, count(features)?, count(chunks)?);
            let config = |blocks: usize| -> Result<LaunchConfig> {
                Ok(LaunchConfig {
                    grid_dim: (count(u32::try_from(blocks))?, 1, 1),
                    block_dim: (THREADS as u32, 1, 1),
                    shared_mem_bytes: 0,
                })
            };
            let chunked = device.get_or_load_custom_func(name, MODULE, PTX)?;
            let mut launch = chunked.builder();
            launch.arg(values).arg(&mut partials).arg(&tokens).arg(&features);
            // SAFETY: as `column_squares.cu` has them; values and sums are as many as tokens,
            // features and chunks say.
            unsafe { launch.launch(config(chunks as usize * blocks)?) }.w()?;
            let total = device.get_or_load_custom_func("column_squares_total", MODULE, PTX)?;
            let mut launch = total.builder();
            launch.arg(&partials).arg(&mut sums).arg(&chunks).arg(&features);
            // SAFETY: as above.
            unsafe { launch.launch(config(blocks)?) }.w()?;
        }
        Ok(CudaStorage::wrap_cuda_slice(sums, device.clone()))
    }

    /// A number that a kernel counts up to.
    fn count(number: std::result::Result<u32, std::num::TryFromIntError>) -> Result<u32> {
        number.ok().filter(|&n| n <= i32::MAX as u32).ok_or_else(|| {
            Error::Msg("too many activations at once; use a smaller micro-batch".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    fn values(tokens: usize, features: usize) -> Vec<f32> {
        (0..tokens * features).map(|i| (i * 7919 % 1013) as f32 / 506.0 - 1.0).collect()
    }

    #[test]
    fn sums_are_near_the_exact_ones() {
        for (tokens, features) in [(1, 1), (63, 5), (64, 5), (65, 5), (1000, 3)] {
            let values = values(tokens, features);
            let mut exact = vec![0.0; features];
            for row in values.chunks(features) {
                for (sum, &x) in exact.iter_mut().zip(row) {
                    *sum += f64::from(x) * f64::from(x);
                }
            }
            for (sum, exact) in column_squares_f32(&values, features).into_iter().zip(exact) {
                assert!((f64::from(sum) - exact).abs() <= 1e-5 * exact, "{sum} for {exact}");
            }
        }
    }

    /// Any layout and type gives the sums of the twin; on a CUDA device too, where there is one.
    #[test]
    fn a_tensor_has_the_sums_of_its_values() {
        for device in [Ok(Device::Cpu), Device::new_cuda(0)].into_iter().flatten() {
            for (tokens, features) in [(1, 1), (64, 7), (65, 300), (257, 32)] {
                let values = values(tokens, features);
                let plain = Tensor::from_vec(values, (tokens, features), &device).unwrap();
                for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                    let typed = plain.to_dtype(dtype).unwrap();
                    for tensor in [
                        typed.clone(),
                        typed.t().unwrap(),
                        typed.narrow(0, tokens / 2, tokens - tokens / 2).unwrap(),
                        typed.narrow(1, 0, features.div_ceil(2)).unwrap(),
                    ] {
                        let rows = tensor.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
                        let expected = column_squares_f32(&rows.concat(), rows[0].len());
                        let got = column_squares(&tensor).unwrap().to_vec1::<f32>().unwrap();
                        assert_eq!(got, expected, "{tokens} × {features} {dtype:?} {device:?}");
                    }
                }
            }
        }
    }
}
