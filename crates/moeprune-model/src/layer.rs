//! One decoder layer.

use candle_core::{DType, Device, Tensor};
use moeprune_core::{
    FeedForward, LayerTensor, LinearId, ModelSpec, MoeInput, TensorId, TensorSource,
};

use crate::{
    ActivationSink, Error, LayerCache,
    attention::Attention,
    cache::SequenceCache,
    linear::Weights,
    mlp::{GatedMlp, MlpShape},
    moe::MoeBlock,
    norm::RmsNorm,
    ops,
};

/// A decoder layer that can be run.
///
/// Called by whatever walks a model layer by layer: calibration, the sequential unstructured
/// stage, evaluation. [`Layer`] implements it for the layers a [`ModelSpec`] describes; another
/// architecture implements it itself.
pub trait DecoderLayer: std::fmt::Debug + Send + Sync {
    /// Runs the layer on `hidden`, `[batch, seq, hidden]`, and returns the same shape.
    ///
    /// `start` is the position of the first token of every sequence. With a cache it must be the
    /// number of positions already cached; the new ones are added. Without, tokens see only each
    /// other. `sink` is shown the activations of all sequences together.
    ///
    /// A sequence's result does not depend on the others in the batch, nor on the number of
    /// threads.
    ///
    /// # Errors
    /// If shapes do not fit, positions go beyond the model's, the router is not finite, or the
    /// sink fails. A cache should be dropped after an error.
    fn forward(
        &self,
        hidden: &Tensor,
        start: usize,
        cache: Option<&mut LayerCache>,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error>;
}

/// A layer with all its weights in memory.
///
/// With `x` the layer's input, norms written as functions, and terms that a layer lacks left out:
///
/// ```text
/// h   = x + attention(input_norm(x))
/// out = h + dense(post_attention_norm(h))                               a layer without experts
/// out = h + residual(residual_norm(h)) + moe(post_attention_norm(m))    m = x (Arctic) or h
/// ```
#[derive(Debug)]
pub struct Layer {
    hidden: usize,
    max_positions: usize,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    feed_forward: Block,
}

#[derive(Debug)]
enum Block {
    Dense(GatedMlp),
    Moe { moe: MoeBlock, input: MoeInput, residual: Option<(RmsNorm, GatedMlp)> },
}

impl Layer {
    /// Reads layer `layer` of a model and widens or narrows it, once, to the type it will compute
    /// in. On the CPU that should be [`DType::F32`], for which there is code of its own; other
    /// types go through candle's operations, which is what a GPU does.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Shape`] name the tensor; [`Error::Spec`] if the specification
    /// asks for something this crate cannot run, or has no such layer.
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Self, Error> {
        let Some(parts) = spec.layers.get(layer) else {
            let layers = spec.layers.len();
            return Err(Error::Spec(format!("no layer {layer} in a model of {layers}")));
        };
        let weights = Weights { source, device, dtype };
        let norm = |tensor| {
            RmsNorm::load(weights, TensorId::Layer(layer, tensor), spec.hidden, spec.norm_eps)
        };
        let shape = |inner| MlpShape { hidden: spec.hidden, inner, activation: spec.activation };
        let feed_forward = match &parts.feed_forward {
            FeedForward::Dense { inner } => {
                Block::Dense(GatedMlp::load(weights, layer, LinearId::Dense, shape(*inner))?)
            }
            FeedForward::Moe(moe) => {
                let residual = match moe.residual_inner {
                    Some(inner) => Some((
                        norm(LayerTensor::ResidualNorm)?,
                        GatedMlp::load(weights, layer, LinearId::Residual, shape(inner))?,
                    )),
                    None => None,
                };
                let block = MoeBlock::load(weights, layer, spec.hidden, moe, spec.activation)?;
                Block::Moe { moe: block, input: moe.input, residual }
            }
            other => return Err(Error::Spec(format!("layer {layer}: no feed-forward {other:?}"))),
        };
        Ok(Self {
            hidden: spec.hidden,
            max_positions: spec.max_positions,
            input_norm: norm(LayerTensor::InputNorm)?,
            attention: Attention::load(weights, layer, spec)?,
            post_attention_norm: norm(LayerTensor::PostAttentionNorm)?,
            feed_forward,
        })
    }

    /// As [`DecoderLayer::forward`] for sequences of different lengths, which continue at
    /// different positions: `x` is `[Σ lens, hidden]`, and there is no padding.
    pub(crate) fn forward_ragged(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let longest = caches.iter().zip(lens).map(|(cache, len)| cache.next() + len).max();
        check_length(longest.unwrap_or(0), self.max_positions)?;
        let normed = self.input_norm.forward(x)?;
        let h = ops::add(x, &self.attention.forward(&normed, lens, caches, sink)?)?;
        match &self.feed_forward {
            Block::Dense(mlp) => {
                let normed = self.post_attention_norm.forward(&h)?;
                ops::add(&h, &mlp.forward(&normed, LinearId::Dense, sink)?)
            }
            Block::Moe { moe, input, residual } => {
                let kept = match residual {
                    Some((norm, mlp)) => {
                        let normed = norm.forward(&h)?;
                        ops::add(&h, &mlp.forward(&normed, LinearId::Residual, sink)?)?
                    }
                    None => h.clone(),
                };
                let read = match input {
                    MoeInput::AfterAttention => &h,
                    MoeInput::LayerInput => x,
                    other => return Err(Error::Spec(format!("no experts' input {other:?}"))),
                };
                let normed = self.post_attention_norm.forward(read)?;
                ops::add(&kept, &moe.forward(&normed, sink)?)
            }
        }
    }
}

impl DecoderLayer for Layer {
    fn forward(
        &self,
        hidden: &Tensor,
        start: usize,
        cache: Option<&mut LayerCache>,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let (batch, seq) = match hidden.dims() {
            &[batch, seq, width] if width == self.hidden => (batch, seq),
            other => {
                return Err(Error::HiddenShape { hidden: self.hidden, got: other.to_vec() });
            }
        };
        if batch == 0 || seq == 0 {
            return Ok(hidden.clone());
        }
        let rows = hidden.reshape((batch * seq, self.hidden))?;
        let lens = vec![seq; batch];
        let out = match cache {
            Some(cache) => {
                if cache.batch() != batch {
                    return Err(Error::CacheBatch { cached: cache.batch(), batch });
                }
                for (sequence, held) in cache.sequences.iter().enumerate() {
                    if held.len != start {
                        return Err(Error::CacheStart { sequence, start, cached: held.len });
                    }
                }
                self.forward_ragged(&rows, &lens, &mut cache.sequences, sink)?
            }
            None => {
                let mut own: Vec<_> =
                    lens.iter().map(|_| SequenceCache::starting_at(start)).collect();
                self.forward_ragged(&rows, &lens, &mut own, sink)?
            }
        };
        Ok(out.reshape((batch, seq, self.hidden))?)
    }
}

pub(crate) fn check_length(len: usize, max_positions: usize) -> Result<(), Error> {
    if len > max_positions { Err(Error::TooLong { len, max_positions }) } else { Ok(()) }
}
