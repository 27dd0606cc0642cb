//! Running a layer over calibration blocks.

use candle_core::Tensor;
use moeprune_core::{ModelSpec, observation::ExactLayer};
use moeprune_model::{Embedding, LayerTrunk};

use crate::{
    Error, LayerObserver, LayerRun, ObserverOptions, StoredLayer, TokenBlocks, Watch,
    expert_stream::for_each_loaded_expert, observer::forward_error,
};

impl StoredLayer<'_> {
    /// Runs the layer over all blocks and sums up what it does: its trunk first, then its experts one
    /// at a time, the next being read while one runs. Returns the sums and the layer's outputs, in the
    /// form of `hidden`: one tensor `[blocks, tokens, hidden]` for each few blocks.
    ///
    /// Held at a time are the trunk or two experts, and the hidden states of all blocks twice, which
    /// the outputs replace. `watch` is called several times and may ask to stop.
    ///
    /// # Errors
    /// If a tensor cannot be read, a forward pass fails, its activations are not finite, or `watch`
    /// asked to stop ([`Error::Stopped`]).
    pub fn observe_and_advance(
        &self,
        hidden: Vec<Tensor>,
        options: ObserverOptions,
        watch: Watch<'_>,
    ) -> Result<(ExactLayer, Vec<Tensor>), Error> {
        let StoredLayer { source, spec, layer, compute } = *self;
        let mut observer = LayerObserver::new(spec, layer, options)?;
        if hidden.is_empty() {
            return Ok((observer.finish_exact()?, hidden));
        }
        let trunk = LayerTrunk::load(source, spec, layer, compute)
            .map_err(|error| forward_error(layer, error))?;
        let mut run = LayerRun::advance(&trunk, layer, hidden, Some(&mut observer), watch)?;
        drop(trunk);
        let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts);
        let busy: Vec<usize> = (0..experts).filter(|&e| run.tokens(e) > 0).collect();
        for_each_loaded_expert(*self, &busy, |expert| {
            run.expert(expert.index(), &expert, Some(&mut observer), watch)
        })?;
        run.show_sums(&mut observer)?;
        Ok((observer.finish_exact()?, run.finish()?))
    }
}

/// Passes of `tokens` tokens through a layer's trunk and its experts.
#[must_use]
pub fn passes(spec: &ModelSpec, layer: usize, tokens: u64) -> u64 {
    tokens * (1 + spec.layers[layer].moe().map_or(0, |moe| moe.top_k as u64))
}

/// The hidden states that the first layer reads: one tensor `[blocks, tokens, hidden]` for each
/// `micro_batch` blocks of one length.
///
/// # Errors
/// If a token has no embedding or the device is out of memory.
pub fn embed_blocks(
    embedding: &Embedding,
    blocks: &TokenBlocks,
    micro_batch: usize,
) -> Result<Vec<Tensor>, Error> {
    let embed = |batch: &[Vec<u32>]| {
        let rows = embedding.embed(&batch.concat())?;
        let width = rows.dim(1).map_err(moeprune_model::Error::from)?;
        let shape = (batch.len(), batch[0].len(), width);
        Ok(rows.reshape(shape).map_err(moeprune_model::Error::from)?)
    };
    blocks.batches(micro_batch).map(embed).collect()
}
