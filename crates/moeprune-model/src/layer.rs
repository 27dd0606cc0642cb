//! One decoder layer.

use candle_core::Tensor;
use moeprune_core::{ModelSpec, TensorSource};

use crate::{
    ActivationSink, Compute, Error, Expert, LayerCache, LayerTrunk, TrunkOutput,
    cache::SequenceCache,
};

/// A layer with all its weights in memory: the trunk and every expert.
#[derive(Debug)]
pub struct Layer {
    trunk: LayerTrunk,
    experts: Vec<Expert>,
}

impl Layer {
    /// Reads layer `layer` of a model.
    ///
    /// # Errors
    /// As [`LayerTrunk::load`] and [`Expert::load`].
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let trunk = LayerTrunk::load(source, spec, layer, compute)?;
        let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts);
        let expert = |e| Expert::load(source, spec, layer, e, compute);
        Ok(Self { trunk, experts: (0..experts).map(expert).collect::<Result<_, _>>()? })
    }

    /// As [`forward`](Self::forward) for sequences of different lengths, which continue at
    /// different positions: `x` is `[Σ lens, hidden]`, and there is no padding.
    pub(crate) fn forward_ragged(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        run(&self.trunk, x, (lens, caches), sink, |busy, visit| {
            busy.iter().try_for_each(|&expert| visit(&self.experts[expert]))
        })
    }
}

/// What is done with an expert.
type Visit<'a> = &'a mut dyn FnMut(&Expert) -> Result<(), Error>;

/// Runs a layer on sequences of different lengths, which continue what their caches hold. `bring` hands over the
/// experts that it is called with, in their order.
pub(crate) fn run(
    trunk: &LayerTrunk,
    x: &Tensor,
    (lens, caches): (&[usize], &mut [SequenceCache]),
    sink: &mut dyn ActivationSink,
    bring: impl FnOnce(&[usize], Visit<'_>) -> Result<(), Error>,
) -> Result<Tensor, Error> {
    let TrunkOutput { mut sum, routed } = trunk.forward_ragged(x, lens, caches, sink)?;
    if let Some(routed) = routed {
        let routed = routed.normalised()?;
        let busy: Vec<usize> = routed.busy().collect();
        bring(&busy, &mut |expert| {
            let (rows, gates) = routed.tokens(expert.index());
            let input = routed.input(expert.index(), 0..rows.len())?;
            let output = expert.forward(&input, sink)?;
            sink.expert_output(expert.index(), &output, gates)?;
            sum.add(rows, gates, &output)
        })?;
    }
    sum.show(sink)?;
    sum.into_tensor()
}

impl Layer {
    /// Whether its tokens see the keys that the layer before it selected: the caller hands them on with
    /// [`LayerCache::see_the_keys_of`] before each call.
    #[must_use]
    pub fn takes_over_keys(&self) -> bool {
        self.trunk.takes_over_keys()
    }

    /// Runs the layer on `hidden`, `[batch, seq, hidden]`, and returns the same shape.
    ///
    /// `start` is the position of the first token of every sequence. With a cache it must be the
    /// number of positions already cached; the new ones are added. Without, tokens see only each
    /// other. `sink` receives the activations of all sequences together.
    ///
    /// A sequence's result does not depend on the others in the batch, nor on the number of
    /// threads: bit for bit in f32 on the CPU, and up to rounding elsewhere.
    ///
    /// # Errors
    /// If shapes do not fit, positions go beyond the model's, the router is not finite, or the
    /// sink fails. A cache should be dropped after an error.
    pub fn forward(
        &self,
        hidden: &Tensor,
        start: usize,
        cache: Option<&mut LayerCache>,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let (batch, seq) = self.trunk.batch_of(hidden)?;
        if batch == 0 || seq == 0 {
            return Ok(hidden.clone());
        }
        let width = hidden.dim(2)?;
        let rows = hidden.reshape((batch * seq, width))?;
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
        Ok(out.reshape((batch, seq, width))?)
    }
}
