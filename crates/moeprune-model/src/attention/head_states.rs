//! Heads that keep a matrix from token to token: how it begins, is handed on and is kept.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, cache::SequenceCache, product::is_parallel};

/// Shape of what the heads of a sequence keep, `[heads, rows, cols]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadStates {
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// A head of a sequence, on slices.
pub(super) struct HeadRun {
    pub(super) head: usize,
    /// Rows of the batch.
    pub(super) rows: Range<usize>,
    /// `[rows, cols]` of its shape.
    pub(super) state: Vec<f32>,
}

impl HeadStates {
    /// Runs each head of each sequence over its `lens[i]` tokens, one after the other in the batch, and
    /// puts together what they give: `run` returns `[tokens, width]`, and this
    /// `[Σ tokens, heads · width]`. `work` is the number of multiply-adds in all.
    pub(super) fn run_each(
        self,
        lens: &[usize],
        caches: &mut [SequenceCache],
        (width, work): (usize, usize),
        run: &(impl Fn(&mut HeadRun) -> Vec<f32> + Sync),
    ) -> Result<Tensor, Error> {
        let mut runs = Vec::with_capacity(lens.len() * self.heads);
        let mut first = 0;
        for (cache, &len) in caches.iter_mut().zip(lens) {
            let all = self.begin(cache, DType::F32, &Device::Cpu)?;
            let all = all.flatten_all()?.to_vec1::<f32>()?;
            for (head, own) in all.chunks_exact(self.rows * self.cols).enumerate() {
                runs.push(HeadRun { head, rows: first..first + len, state: own.to_vec() });
            }
            first += len;
        }
        let outputs: Vec<Vec<f32>> = if is_parallel(work) {
            runs.par_iter_mut().map(run).collect()
        } else {
            runs.iter_mut().map(run).collect()
        };
        let mut mixed = vec![0.0; first * self.heads * width];
        for (run, output) in runs.iter().zip(&outputs) {
            for (row, output) in run.rows.clone().zip(output.chunks_exact(width)) {
                let start = (row * self.heads + run.head) * width;
                mixed[start..start + width].copy_from_slice(output);
            }
        }
        for (cache, own) in caches.iter_mut().zip(runs.chunks_exact(self.heads)) {
            let all = own.iter().flat_map(|run| &run.state).copied().collect::<Vec<_>>();
            let shape = (self.heads, self.rows, self.cols);
            cache.running.state = Some(Tensor::from_vec(all, shape, &Device::Cpu)?);
        }
        Ok(Tensor::from_vec(mixed, (first, self.heads * width), &Device::Cpu)?)
    }

    /// What all sequences continue, `[sequences · heads, rows, cols]`, in the type and place of `like`.
    pub(super) fn begin_all(
        self,
        caches: &mut [SequenceCache],
        like: &Tensor,
    ) -> Result<Tensor, Error> {
        let states = caches.iter_mut().map(|cache| self.begin(cache, like.dtype(), like.device()));
        Ok(Tensor::cat(&states.collect::<Result<Vec<_>, Error>>()?, 0)?)
    }

    /// Keeps the states after the last token, in the form of [`begin_all`](Self::begin_all).
    pub(super) fn keep_all(
        self,
        states: &Tensor,
        caches: &mut [SequenceCache],
    ) -> Result<(), Error> {
        for (sequence, cache) in caches.iter_mut().enumerate() {
            let own = states.narrow(0, sequence * self.heads, self.heads)?.force_contiguous()?;
            cache.running.state = Some(own);
        }
        Ok(())
    }

    /// From `[sequences · len, of · width]`, where each of `of` serves as many neighbouring heads, to
    /// `[len, sequences · heads, width]`.
    pub(super) fn by_token(
        self,
        x: &Tensor,
        sequences: usize,
        of: usize,
        width: usize,
    ) -> Result<Tensor, Error> {
        let each = self.heads / of;
        let x = x.reshape((sequences, (), of, 1, width))?;
        let len = x.dim(1)?;
        let x = x.broadcast_as((sequences, len, of, each, width))?.transpose(0, 1)?;
        Ok(x.reshape((len, sequences * self.heads, width))?)
    }

    /// What a sequence continues: zeros at its beginning.
    fn begin(
        self,
        cache: &mut SequenceCache,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, Error> {
        match cache.running.state.take() {
            Some(state) => Ok(state),
            None => Ok(Tensor::zeros((self.heads, self.rows, self.cols), dtype, device)?),
        }
    }
}

/// Calls `run` with sequences of equal length at a time: all of them, or one after the other. It receives
/// their rows of the batch, the length of each and their caches, and returns what these rows give.
pub(super) fn in_equal_lengths(
    lens: &[usize],
    caches: &mut [SequenceCache],
    run: &impl Fn(Range<usize>, usize, &mut [SequenceCache]) -> Result<Tensor, Error>,
) -> Result<Tensor, Error> {
    if lens.windows(2).all(|pair| pair[0] == pair[1]) {
        return run(0..lens.iter().sum(), lens.first().copied().unwrap_or(0), caches);
    }
    let mut first = 0;
    let mut outputs = Vec::with_capacity(lens.len());
    for (cache, &len) in caches.chunks_mut(1).zip(lens) {
        outputs.push(run(first..first + len, len, cache)?);
        first += len;
    }
    Ok(Tensor::cat(&outputs, 0)?)
}
