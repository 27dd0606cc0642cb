//! A device, and one matrix pruned on it and on the CPU.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use moeprune_core::{Dtype, LinearView, Sparsity, TensorBytes, WeightScorer};
use moeprune_score::{
    MaskPattern, Rounding,
    cuda::{Error, ScoreKernels},
    prune_matrix,
};

use crate::matrices::Matrix;

pub(crate) struct Device {
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) kernels: ScoreKernels,
}

impl Device {
    pub(crate) fn new() -> Option<Self> {
        // Where the driver is loaded when it is first used, cudarc panics if there is none.
        let context = match std::panic::catch_unwind(|| CudaContext::new(0)) {
            Ok(Ok(context)) => context,
            Ok(Err(error)) => {
                eprintln!("skipped: no CUDA device: {error:?}");
                return None;
            }
            Err(_) => {
                eprintln!("skipped: no CUDA driver");
                return None;
            }
        };
        let kernels = ScoreKernels::load(&context).unwrap();
        Some(Self { stream: context.new_stream().unwrap(), kernels })
    }

    pub(crate) fn take(&self, bytes: &[u8]) -> CudaSlice<u8> {
        self.stream.clone_htod(bytes).unwrap()
    }

    /// Prunes on the device; the bytes after it.
    pub(crate) fn prune(
        &self,
        tensor: &TensorBytes<'_>,
        linear: &LinearView<'_>,
        share: f64,
        scorer: &dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) -> Result<(Vec<u8>, u64, bool), Error> {
        let mut weights = self.take(tensor.bytes());
        let (ratio, dtype) = (Sparsity::new(share).unwrap(), tensor.dtype());
        let pruned = self.kernels.prune_matrix(
            &self.stream,
            &mut weights.as_view_mut(),
            dtype,
            linear,
            ratio,
            scorer,
            pattern,
            rounding,
        )?;
        let bytes = self.stream.clone_dtoh(&weights).unwrap();
        self.stream.synchronize().unwrap();
        Ok((bytes, pruned.zeroed, pruned.fallback))
    }

    #[track_caller]
    pub(crate) fn check(
        &self,
        matrix: &Matrix,
        dtype: Dtype,
        share: f64,
        scorer: &dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) {
        let (tensor, linear) = (matrix.tensor(dtype), matrix.linear());
        let ratio = Sparsity::new(share).unwrap();
        let expected = prune_matrix(tensor.clone(), &linear, ratio, scorer, pattern, rounding);
        let case = format!(
            "{} × {} {dtype}, {share} by {scorer:?}, {pattern:?}, {rounding:?}",
            matrix.rows, matrix.cols
        );
        let got = self.prune(&tensor, &linear, share, scorer, pattern, rounding);
        match (expected, got) {
            (Ok(expected), Ok((bytes, zeroed, fallback))) => {
                let size = tensor.bytes().len() / (matrix.rows * matrix.cols).max(1);
                let wrong = bytes.iter().zip(expected.tensor.bytes()).position(|(a, b)| a != b);
                let place =
                    wrong.map(|byte| [byte / size / matrix.cols, byte / size % matrix.cols]);
                assert_eq!(place, None, "the first wrong weight of {case}");
                assert_eq!((zeroed, fallback), (expected.zeroed, expected.fallback), "{case}");
            }
            (Err(expected), Err(got)) => {
                assert_eq!(got.to_string(), expected.to_string(), "{case}");
            }
            (expected, got) => {
                panic!("{case}: {:?} for {:?}", got.map(|got| got.1), expected.map(|e| e.zeroed))
            }
        }
    }
}
