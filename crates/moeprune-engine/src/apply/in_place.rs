//! Scores and masks of a weight, wherever it is.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use candle_core::{Device, Tensor};
use moeprune_core::{InputHessian, LinearView, Sparsity, StoredWeight, TensorBytes};
use moeprune_score::{
    Fallback, ScoreSum, count_above, enough_inputs, prune_weight, reconstruct_matrix, score_sum,
};

use crate::{Error, Execution, Scored, WeightStage};

/// What is to be zeroed of one Linear.
#[derive(Debug)]
pub struct MaskRequest<'a> {
    /// The Linear and what reached it.
    pub linear: LinearView<'a>,
    /// What a reconstruction needs; `None` if no token came.
    pub hessian: Option<&'a InputHessian>,
    /// The share that goes.
    pub ratio: Sparsity,
    /// How it is chosen.
    pub weights: &'a WeightStage,
    /// Where.
    pub execution: &'a Execution,
    /// Weights that have no code that is zero and stay, as far as the Linear was worked on.
    pub without_zero: AtomicU64,
    /// Weights that were zero before, once the Linear was worked on; never set where a kernel does that.
    pub zero_before: OnceLock<u64>,
}

impl MaskRequest<'_> {
    /// The weight's main tensor with weights zeroed.
    ///
    /// # Errors
    /// If scoring fails, a weight that goes has no code that is zero, or weights that are reconstructed are no
    /// numbers by themselves.
    pub fn of_stored(&self, weight: StoredWeight<'_>) -> Result<TensorBytes<'static>, Error> {
        let Scored { scorer, pattern, rounding } = self.weights.scored();
        let (scorer, pattern, rounding) = (&**scorer, &**pattern, *rounding);
        let (linear, ratio) = (&self.linear, self.ratio);
        self.zero_before.get_or_init(|| weight.count_zeros());
        let pruned = match self.weights.method() {
            None => prune_weight(weight, linear, ratio, scorer, pattern, rounding)?,
            Some(method) => {
                let fallback = Fallback { scorer, pattern, rounding };
                reconstruct_matrix(
                    weight.into_plain()?,
                    linear,
                    self.hessian,
                    ratio,
                    method,
                    fallback,
                )?
            }
        };
        self.without_zero.fetch_add(pruned.without_zero, Ordering::Relaxed);
        Ok(pruned.tensor)
    }

    /// Whether there is a reconstruction and too few tokens came for it.
    pub(crate) fn falls_back(&self) -> bool {
        self.weights
            .method()
            .is_some_and(|method| enough_inputs(self.hessian, &self.linear, method).is_none())
    }

    /// Zeroes weights of a tensor where it is.
    ///
    /// # Errors
    /// If scoring or a tensor operation fails.
    pub fn in_place(&self, weight: &Tensor) -> Result<(), Error> {
        #[cfg(feature = "cuda")]
        if self.weights.method().is_none() && self.execution.kernels().is_some() {
            return device::mask(self, weight);
        }
        // There is no kernel of it: the weight goes to the host, its encoding reads the result, and it
        // goes back.
        let stored = StoredWeight::alone(self.execution.compute().download(weight)?)?;
        let masked = self.of_stored(stored)?;
        let mut values = vec![0.0; masked.elements()];
        StoredWeight::alone(masked)?.decode(0, &mut values)?;
        let values = Tensor::from_vec(values, weight.dims(), &Device::Cpu)?;
        let values = values.to_dtype(weight.dtype())?.to_device(weight.device())?;
        Ok(weight.slice_set(&values, 0, 0)?)
    }
}

/// Adds up the scores of a weight on a device.
pub(super) fn score_sum_of(
    weight: &Tensor,
    linear: &LinearView<'_>,
    weights: &WeightStage,
    execution: &Execution,
) -> Result<ScoreSum, Error> {
    let scorer = &*weights.scored().scorer;
    #[cfg(feature = "cuda")]
    if let Some(kernels) = execution.kernels() {
        return device::with_bytes(weight, |stream, bytes, dtype| {
            Ok(kernels.score_sum(stream, bytes, dtype, linear, scorer)?)
        });
    }
    Ok(score_sum(&execution.compute().download(weight)?, linear, scorer)?)
}

/// Counts the scores of a weight on a device that are above a threshold.
pub(super) fn count_above_of(
    weight: &Tensor,
    linear: &LinearView<'_>,
    threshold: f64,
    weights: &WeightStage,
    execution: &Execution,
) -> Result<u64, Error> {
    let scorer = &*weights.scored().scorer;
    #[cfg(feature = "cuda")]
    if let Some(kernels) = execution.kernels() {
        return device::with_bytes(weight, |stream, bytes, dtype| {
            Ok(kernels.count_above(stream, bytes, dtype, linear, scorer, threshold)?)
        });
    }
    Ok(count_above(&execution.compute().download(weight)?, linear, scorer, threshold)?)
}

/// candle's tensors as the bytes that kernels take.
#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "elements are handed over as bytes")]
mod device {
    use std::{cell::RefCell, sync::Arc};

    use candle_core::{
        CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Storage, Tensor,
        cuda_backend::CudaDType,
    };
    use cudarc::driver::{CudaStream, CudaView, CudaViewMut};
    use half::{bf16, f16};
    use moeprune_core::Dtype;

    use super::MaskRequest;
    use crate::{Error, Scored};

    /// Zeroes weights of a tensor on the device, by its kernels.
    pub(super) fn mask(request: &MaskRequest<'_>, weight: &Tensor) -> Result<(), Error> {
        let operation = InPlace { request, outcome: RefCell::new(Ok(())) };
        weight.inplace_op1(&operation)?;
        operation.outcome.into_inner()
    }

    /// The operation as candle runs it.
    struct InPlace<'a> {
        request: &'a MaskRequest<'a>,
        /// An error of ours, which candle's cannot carry.
        outcome: RefCell<Result<(), Error>>,
    }

    impl InplaceOp1 for InPlace<'_> {
        fn name(&self) -> &'static str {
            "mask"
        }

        fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
            candle_core::bail!("kernels mask weights of their own device only");
        }

        fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
            let MaskRequest { linear, ratio, weights, execution, .. } = self.request;
            let Some(kernels) = execution.kernels() else {
                candle_core::bail!("masks on a device need its kernels");
            };
            let pruned = with_bytes_mut(storage, layout, |stream, bytes, dtype| {
                let Scored { scorer, pattern, rounding } = weights.scored();
                kernels.prune_matrix(
                    stream, bytes, dtype, linear, *ratio, &**scorer, &**pattern, *rounding,
                )
            })?;
            *self.outcome.borrow_mut() = pruned.map(|_| ()).map_err(Error::from);
            Ok(())
        }
    }

    pub(super) fn with_bytes<R>(
        weight: &Tensor,
        look: impl FnOnce(&Arc<CudaStream>, &CudaView<'_, u8>, Dtype) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (storage, layout) = weight.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(candle_core::Error::Msg("the weight is not on the device".into()).into());
        };
        match weight.dtype() {
            DType::BF16 => of::<bf16, R>(storage, layout, Dtype::BF16, look),
            DType::F16 => of::<f16, R>(storage, layout, Dtype::F16, look),
            _ => of::<f32, R>(storage, layout, Dtype::F32, look),
        }
    }

    fn of<T: CudaDType, R>(
        storage: &CudaStorage,
        layout: &Layout,
        dtype: Dtype,
        look: impl FnOnce(&Arc<CudaStream>, &CudaView<'_, u8>, Dtype) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (start, end) = contiguous(layout)?;
        let view = storage.as_cuda_slice::<T>()?.slice(start..end);
        // SAFETY: any such element is bytes, and these are as many.
        let bytes = unsafe { view.transmute::<u8>((end - start) * size_of::<T>()) };
        let bytes = bytes.ok_or_else(|| candle_core::Error::Msg("misaligned weight".into()))?;
        look(&storage.device.cuda_stream(), &bytes, dtype)
    }

    fn with_bytes_mut<R>(
        storage: &mut CudaStorage,
        layout: &Layout,
        change: impl FnOnce(&Arc<CudaStream>, &mut CudaViewMut<'_, u8>, Dtype) -> R,
    ) -> candle_core::Result<R> {
        use candle_core::backend::BackendStorage as _;
        match storage.dtype() {
            DType::BF16 => of_mut::<bf16, R>(storage, layout, Dtype::BF16, change),
            DType::F16 => of_mut::<f16, R>(storage, layout, Dtype::F16, change),
            DType::F32 => of_mut::<f32, R>(storage, layout, Dtype::F32, change),
            other => {
                candle_core::bail!("only bf16, f16 and f32 weights can be masked, not {other:?}")
            }
        }
    }

    fn of_mut<T: CudaDType, R>(
        storage: &mut CudaStorage,
        layout: &Layout,
        dtype: Dtype,
        change: impl FnOnce(&Arc<CudaStream>, &mut CudaViewMut<'_, u8>, Dtype) -> R,
    ) -> candle_core::Result<R> {
        let (start, end) = contiguous(layout)?;
        let stream = storage.device.cuda_stream();
        let mut view = storage.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        // SAFETY: any such element is bytes, and any bytes that kernels leave are such an element.
        let bytes = unsafe { view.transmute_mut::<u8>((end - start) * size_of::<T>()) };
        let mut bytes = bytes.ok_or_else(|| candle_core::Error::Msg("misaligned weight".into()))?;
        Ok(change(&stream, &mut bytes, dtype))
    }

    fn contiguous(layout: &Layout) -> candle_core::Result<(usize, usize)> {
        layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::Msg("a weight with gaps cannot be scored".into()))
    }
}
