/*!
Calibration text to token blocks, and the forward passes that fill an observation of a
mixture-of-experts model.

# Brief overview

Everything moeprune decides about a model, it decides from sums over calibration tokens: how often
and how strongly the router chose each expert, which experts it chose together, and how large the
inputs of every Linear were. This crate takes those sums.

| step | item |
|---|---|
| find out what a file holds | [`open_calibration`], or a custom [`CalibrationSource`] |
| draw blocks of tokens | [`token_blocks`]; [`token_blocks_in_order`] for a perplexity |
| run the model over them | [`observe`] |
| keep what was seen | [`write_observation`], [`read_observation`] |

A caller that changes the layers on the way runs them one by one: [`embed_blocks`], then for each layer a
[`LayerRun`] as it is and another as it was made, so that every layer is watched on what the changed
ones before it give. A layer that is no [`LayerTrunk`](moeprune_model::LayerTrunk) with experts, but
a custom [`DecoderLayer`](moeprune_model::DecoderLayer), goes through [`observe_layer`] and
[`advance_layer`].

# Example

Blocks out of a text, and a layer's sums from one forward call; here the layer is made up.

```
use candle_core::{Device, Tensor};
use moeprune_capture::{
    Document, ObserverOptions, SamplingOptions, observe_layer, token_blocks,
};
use moeprune_core::{
    AttentionProjection::Query, AttentionSpec, FeedForward, GroupedAttention, LayerSpec, LinearId,
    MlpSpec, ModelSpec, NormWeights,
};
use moeprune_model::{ActivationSink, DecoderLayer, LayerCache};

// Sixteen tokens in one document; two blocks of four are drawn from it.
let text = vec![Document::tokens((0..16).collect::<Vec<u32>>())];
let options = SamplingOptions { samples: 2, sequence_len: 4, seed: 7 };
let blocks = token_blocks(&text, None, 32, &options)?;
assert_eq!(blocks.tokens(), 8);

/// Attention reads its input and adds nothing.
#[derive(Debug)]
struct Still;

impl DecoderLayer for Still {
    fn forward(
        &self,
        hidden: &Tensor,
        _start: usize,
        _cache: Option<&mut LayerCache>,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, moeprune_model::Error> {
        sink.linear_input(LinearId::Attention(Query), &hidden.flatten(0, 1)?)?;
        Ok(hidden.clone())
    }
}

let attention = AttentionSpec::Grouped(GroupedAttention::new(1, 1, 2, 1e4));
let feed_forward = FeedForward::Dense(MlpSpec::gated(2));
let layer = LayerSpec { attention, feed_forward, other: Vec::new() };
let spec = ModelSpec {
    family: "still".into(), hidden: 2, vocab: 32, max_positions: 4, norm_eps: 1e-5,
    norm_weights: NormWeights::Plain, tied_embeddings: true, layers: vec![layer], extra: None,
};
let hidden = [Tensor::new(&[[[3.0_f32, 1.0], [4.0, 2.0]]], &Device::Cpu)?];
let seen = observe_layer(&Still, &spec, 0, &hidden, None, ObserverOptions::default())?;
let input = seen.inputs.get(&LinearId::Attention(Query)).ok_or("attention reads its input")?;
assert_eq!((input.tokens, input.calls), (2, 1));
assert_eq!(input.sum_squares, [25.0, 5.0]);
# Ok::<(), Box<dyn std::error::Error>>(())
```

# Why it is so

*Sums, not averages*: observations of several texts add up, one serves any number of plans, and
whether to divide by tokens or by calls is left to the caller. *Tokens are real*: nothing is
padded, so no statistic counts a filler. *The same every time*: blocks come from a random stream
that belongs to this crate, and everything is summed in one order, so a seed gives the same
observation on any number of threads. *Any size*: a text is streamed, experts are loaded, run and
dropped one at a time, and only the hidden states of the blocks stay.
*/

mod activations;
mod calibration_file;
mod column_squares;
mod document;
mod encoding;
mod error;
mod expert_stream;
mod forward;
mod hessians;
mod layer_run;
pub mod observation_file;
mod observer;
mod random;
mod sampling;

pub use calibration_file::{CalibrationFile, CalibrationFormat, open_calibration};
pub use document::{CalibrationSource, Content, Document, Documents};
pub use error::Error;
pub use forward::{
    CaptureProgress, advance_layer, embed_blocks, observe, observe_and_advance, observe_layer,
    passes,
};
pub use layer_run::{DEVICE_EXPERT_ROWS, LayerRun, Watch, expert_rows};
#[doc(inline)]
pub use observation_file::{
    observation_sha256, read_observation, write_observation, write_observation_to,
};
pub use observer::{LayerObserver, ObservationBuilder, ObserverOptions};
pub use sampling::{
    BlockOrigin, SamplingOptions, TokenBlocks, token_blocks, token_blocks_in_order,
};
