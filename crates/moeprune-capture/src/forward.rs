//! Running a model over calibration blocks, one layer at a time.

use candle_core::{DType, Device, Tensor};
use moeprune_core::{CorpusTag, LayerObservation, ModelSpec, Observation, TensorSource};
use moeprune_model::{DecoderLayer, Embedding, Layer, NoSink};

use crate::{
    Error, LayerObserver, ObservationBuilder, ObserverOptions, TokenBlocks, observer::forward_error,
};

/// How far [`observe`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureProgress {
    /// The layer that runs, from 0.
    pub layer: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Tokens that went through this layer.
    pub tokens_done: u64,
    /// Tokens that will.
    pub tokens_total: u64,
}

/// Runs a model over `blocks` and sums up what every layer does.
///
/// Held at a time are one layer and the hidden states of all blocks: `tokens · hidden` numbers,
/// which every layer replaces. The numbers are f32 on the CPU and bf16 elsewhere. `progress` is
/// called after each block of each layer.
///
/// `tag` and `fingerprint` are put into the observation as they are: which text the blocks are of
/// ([`CalibrationFile::tag`](crate::CalibrationFile::tag)), and which model this is.
///
/// # Errors
/// If a tensor cannot be read, a forward pass fails, or its activations are not finite.
pub fn observe(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    blocks: &TokenBlocks,
    device: &Device,
    tag: CorpusTag,
    fingerprint: String,
    progress: &mut dyn FnMut(CaptureProgress),
) -> Result<Observation, Error> {
    let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
    let mut builder = ObservationBuilder::new(spec, ObserverOptions::default());
    let mut hidden = embed_blocks(&Embedding::load(source, spec, device, dtype)?, blocks)?;
    let (layers, tokens_total) = (spec.layers.len(), blocks.tokens());
    for layer in 0..layers {
        let mut observer = builder.layer(layer)?;
        let loaded = Layer::load(source, spec, layer, device, dtype)
            .map_err(|source| Error::Forward { layer, source: Box::new(source) })?;
        let mut tokens_done = 0;
        for state in &mut hidden {
            *state = observe_block(&loaded, layer, state, &mut observer)?;
            tokens_done += state.dim(1).map_or(0, |tokens| tokens as u64);
            progress(CaptureProgress { layer, layers, tokens_done, tokens_total });
        }
        builder.push(observer.finish()?);
    }
    Ok(builder.finish(fingerprint, tag))
}

/// The hidden states that the first layer reads: one tensor `[1, tokens, hidden]` a block.
///
/// # Errors
/// If a token has no embedding or the device is out of memory.
pub fn embed_blocks(embedding: &Embedding, blocks: &TokenBlocks) -> Result<Vec<Tensor>, Error> {
    let embed = |block: &Vec<u32>| {
        Ok(embedding.embed(block)?.unsqueeze(0).map_err(moeprune_model::Error::from)?)
    };
    blocks.blocks().iter().map(embed).collect()
}

/// Runs layer number `index` of a model on `inputs`, one tensor `[1, tokens, hidden]` a block and
/// a forward call, and sums up what it does.
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
