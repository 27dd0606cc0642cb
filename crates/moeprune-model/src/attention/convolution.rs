//! Causal depthwise convolutions.

use candle_core::{Device, Tensor};
use moeprune_core::{LayerTensor, TensorId};
use rayon::prelude::*;

use crate::{
    Error,
    cache::SequenceCache,
    linear::Weights,
    ops::{self, is_host, wide, with_slice},
    product::is_parallel,
};

/// `y[t, c] = Σ weight[j, c] · x[t − (kernel − 1) + j, c] + bias[c]`; before the first token are zeros.
#[derive(Debug)]
pub(super) struct Convolution {
    /// `[kernel, channels]`, f32 or wider.
    weight: Tensor,
    /// `[channels]`, f32 or wider.
    bias: Option<Tensor>,
}

impl Convolution {
    /// Reads convolutions of `channels` channels each, `[channels, 1, kernel]`, as one: their channels
    /// stand one after the other.
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        tensors: &[LayerTensor],
        channels: usize,
        kernel: usize,
    ) -> Result<Self, Error> {
        if kernel == 0 || channels == 0 {
            return Err(Error::Spec(format!(
                "layer {layer}: a convolution of no tokens or channels"
            )));
        }
        let read = |&tensor: &LayerTensor| {
            let stored = weights.stored(TensorId::Layer(layer, tensor), &[channels, 1, kernel])?;
            Ok(stored.to_dtype(wide(weights.compute.dtype()))?.reshape((channels, kernel))?)
        };
        let read = tensors.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { weight: Tensor::cat(&read, 0)?.t()?.contiguous()?, bias: None })
    }

    /// The same with a bias, `[channels]`.
    pub(super) fn with_bias(self, bias: Tensor) -> Result<Self, Error> {
        Ok(Self { bias: Some(bias.to_dtype(self.weight.dtype())?), ..self })
    }

    /// `x` holds `lens[i]` tokens of sequence `i`, one sequence after the other, `[tokens, channels]`;
    /// each continues what its cache holds, where its last inputs are kept. Returns the same shape, in
    /// f32 or wider.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let kernel = self.weight.dim(0)?;
        let x = x.to_dtype(self.weight.dtype())?;
        let mut first = 0;
        let mut outputs = Vec::with_capacity(lens.len());
        for (cache, &len) in caches.iter_mut().zip(lens) {
            let rows = x.narrow(0, first, len)?;
            let padded = self.after_earlier(&rows, cache.running.inputs.take())?;
            outputs.push(self.slide(&padded, len)?);
            if kernel > 1 {
                // A copy: what is kept must not hold the memory of all tokens.
                let last = padded.narrow(0, len, kernel - 1)?.force_contiguous()?;
                cache.running.inputs = Some(last);
            }
            first += len;
        }
        let output = Tensor::cat(&outputs, 0)?;
        match &self.bias {
            None => Ok(output),
            Some(bias) => ops::add_to_rows(&output, bias),
        }
    }

    /// New inputs of a sequence after its last ones, or after zeros, `[kernel − 1 + len, channels]`.
    fn after_earlier(&self, rows: &Tensor, earlier: Option<Tensor>) -> Result<Tensor, Error> {
        let (kernel, channels) = self.weight.dims2()?;
        if kernel == 1 {
            return Ok(rows.clone());
        }
        let earlier = match earlier {
            Some(earlier) => earlier,
            None => Tensor::zeros((kernel - 1, channels), rows.dtype(), rows.device())?,
        };
        Ok(Tensor::cat(&[&earlier, rows], 0)?)
    }

    /// `padded` is `[kernel − 1 + len, channels]`.
    fn slide(&self, padded: &Tensor, len: usize) -> Result<Tensor, Error> {
        let (kernel, channels) = self.weight.dims2()?;
        if is_host(padded) {
            let output = with_slice(padded, |padded| {
                with_slice(&self.weight, |weight| slide(padded, weight, channels))
            })??;
            return Ok(Tensor::from_vec(output, (len, channels), &Device::Cpu)?);
        }
        let tap = |j: usize| {
            let (rows, weight) = (padded.narrow(0, j, len)?, self.weight.narrow(0, j, 1)?);
            Ok::<_, Error>(rows.broadcast_mul(&weight)?)
        };
        let mut sum = tap(0)?;
        for j in 1..kernel {
            sum = (sum + tap(j)?)?;
        }
        Ok(sum)
    }
}

/// The same on slices; as many rows more come in as the kernel has, less one.
fn slide(padded: &[f32], weight: &[f32], channels: usize) -> Vec<f32> {
    let mut output = vec![0.0; padded.len() + channels - weight.len()];
    let row = |(t, row): (usize, &mut [f32])| {
        for (j, weight) in weight.chunks_exact(channels).enumerate() {
            let seen = &padded[(t + j) * channels..][..channels];
            for ((y, x), w) in row.iter_mut().zip(seen).zip(weight) {
                *y += x * w;
            }
        }
    };
    if is_parallel(output.len() * weight.len() / channels) {
        output.par_chunks_mut(channels).enumerate().for_each(row);
    } else {
        output.chunks_mut(channels).enumerate().for_each(row);
    }
    output
}
