//! Running a model over calibration blocks, one layer at a time.

use std::ops::ControlFlow;

use candle_core::Tensor;
use moeprune_core::{CorpusTag, LayerObservation, ModelSpec, Observation, TensorSource};
use moeprune_model::{Compute, DecoderLayer, Embedding, LayerTrunk, NoSink};

use crate::{
    Error, LayerObserver, LayerRun, ObservationBuilder, ObserverOptions, TokenBlocks, Watch,
    expert_stream::for_each_loaded_expert, observer::forward_error,
};

/// How far [`observe`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureProgress {
    /// The layer that runs, from 0.
    pub layer: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Passes of a token through the layer's trunk or through one of its experts, done so far.
    pub passes_done: u64,
    /// All of them: tokens · (1 + top-k).
    pub passes_total: u64,
}

/// Runs a model over `blocks` and sums up what every layer does.
///
/// Held at a time are a layer's trunk or two of its experts, and the hidden states of all blocks
/// twice: `2 · tokens · hidden` numbers of the type that is computed in, which every layer
/// replaces. `micro_batch` blocks go through a trunk together. `progress` is called several times
/// per layer and may ask to stop.
///
/// `tag` and `fingerprint` are put into the observation as they are: which text the blocks are of
/// ([`CalibrationFile::tag`](crate::CalibrationFile::tag)), and which model this is.
///
/// # Errors
/// If a tensor cannot be read, a forward pass fails, its activations are not finite, or `progress`
/// asked to stop ([`Error::Stopped`]).
#[expect(clippy::too_many_arguments, reason = "what is run, where, and what the result is called")]
pub fn observe(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    blocks: &TokenBlocks,
    compute: &Compute,
    micro_batch: usize,
    tag: CorpusTag,
    fingerprint: String,
    progress: &mut dyn FnMut(CaptureProgress) -> ControlFlow<()>,
) -> Result<Observation, Error> {
    let options = ObserverOptions::default();
    let mut builder = ObservationBuilder::new(spec, options);
    let mut hidden = embed_blocks(&Embedding::load(source, spec, compute)?, blocks, micro_batch)?;
    let layers = spec.layers.len();
    for layer in 0..layers {
        let mut passes_done = 0;
        let passes_total = passes(spec, layer, blocks.tokens());
        let mut watch = |more| {
            passes_done += more;
            progress(CaptureProgress { layer, layers, passes_done, passes_total })
        };
        let (seen, outputs) =
            observe_and_advance(source, spec, compute, layer, hidden, options, &mut watch)?;
        hidden = outputs;
        builder.push(seen);
    }
    Ok(builder.finish(fingerprint, tag))
}

/// Passes of `tokens` tokens through a layer's trunk and its experts.
#[must_use]
pub fn passes(spec: &ModelSpec, layer: usize, tokens: u64) -> u64 {
    tokens * (1 + spec.layers[layer].moe().map_or(0, |moe| moe.top_k as u64))
}

/// Runs layer `layer` of a model over all blocks and sums up what it does: its trunk first, then
/// its experts one at a time, the next being read while one runs. Returns the sums and the layer's
/// outputs, in the form of `hidden`: one tensor `[blocks, tokens, hidden]` for each few blocks.
///
/// # Errors
/// As [`observe`].
pub fn observe_and_advance(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    compute: &Compute,
    layer: usize,
    hidden: Vec<Tensor>,
    options: ObserverOptions,
    watch: Watch<'_>,
) -> Result<(LayerObservation, Vec<Tensor>), Error> {
    let mut observer = LayerObserver::new(spec, layer, options)?;
    if hidden.is_empty() {
        return Ok((observer.finish()?, hidden));
    }
    let trunk = LayerTrunk::load(source, spec, layer, compute)
        .map_err(|error| forward_error(layer, error))?;
    let mut run = LayerRun::advance(&trunk, layer, hidden, Some(&mut observer), watch)?;
    drop(trunk);
    let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts);
    let busy: Vec<usize> = (0..experts).filter(|&e| run.tokens(e) > 0).collect();
    for_each_loaded_expert(source, spec, compute, layer, &busy, |expert| {
        run.expert(expert.index(), &expert, Some(&mut observer), watch)
    })?;
    Ok((observer.finish()?, run.finish()?))
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

/// Runs layer number `index` of a model on `inputs`, one tensor `[1, tokens, hidden]` per block and
/// forward call, and sums up what it does. A tensor counts as one block.
///
/// `spec` says what the layer is made of: a layer that lost experts goes with a specification that
/// has as many fewer. The layer's results are appended to `outputs`, if asked for.
///
/// # Errors
/// If the forward pass fails, reports what does not fit `spec`, or has activations that are not
/// finite.
pub fn observe_layer(
    layer: &dyn DecoderLayer,
    spec: &ModelSpec,
    index: usize,
    inputs: &[Tensor],
    mut outputs: Option<&mut Vec<Tensor>>,
    options: ObserverOptions,
) -> Result<LayerObservation, Error> {
    let mut observer = LayerObserver::new(spec, index, options)?;
    for input in inputs {
        let output = observe_block(layer, index, input, &mut observer)?;
        if let Some(outputs) = &mut outputs {
            outputs.push(output);
        }
    }
    observer.finish()
}

/// Replaces the hidden states of all blocks by what `layer` makes of them, watching nothing.
///
/// # Errors
/// If the forward pass fails.
pub fn advance_layer(layer: &dyn DecoderLayer, hidden: &mut [Tensor]) -> Result<(), Error> {
    for state in hidden {
        *state = layer.forward(state, 0, None, &mut NoSink)?;
    }
    Ok(())
}

fn observe_block(
    layer: &dyn DecoderLayer,
    index: usize,
    input: &Tensor,
    observer: &mut LayerObserver,
) -> Result<Tensor, Error> {
    observer.begin_block();
    layer.forward(input, 0, None, observer).map_err(|error| forward_error(index, error))
}
