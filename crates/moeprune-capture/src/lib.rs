/*!
Calibration text to token blocks, and the forward passes that fill an observation of a
mixture-of-experts model.

# Brief overview

Everything moeprune decides about a model, it decides from sums over calibration tokens: how often
and how strongly the router chose each expert, which experts it chose together, and how large the
inputs of every Linear were. This crate takes those sums.

| step | item |
|---|---|
| give documents of text | a [`CalibrationSource`] |
| draw blocks of tokens | [`token_blocks`]; [`token_blocks_apart`] and others beside them, [`token_blocks_in_groups`] several groups of such; [`token_blocks_in_order`] for a perplexity |
| run a layer of the model over them | [`embed_blocks`], then [`StoredLayer::observe_and_advance`] |
| keep what was seen | [`write_observation`], [`read_observation`] |

A caller that changes the layers on the way takes the steps of a layer one by one: a [`LayerRun`] as
it is and another as it was made, so that every layer is watched on what the changed ones before it
give.

# Example

Blocks out of a text, and the sums of a layer's inputs; here the activations are made up.

```
use candle_core::{Device, Tensor};
use moeprune_capture::{
    Document, LayerObserver, ObserverOptions, SamplingOptions, token_blocks,
};
use moeprune_core::{
    AttentionProjection::Query, AttentionSpec, FeedForward, GroupedAttention, LayerSpec, LinearId,
    MlpSpec, ModelSpec, Multipliers, NormWeights,
};
use moeprune_model::ActivationSink;

// Sixteen tokens in one document; two blocks of four are drawn from it.
let text = vec![Document::tokens((0..16).collect::<Vec<u32>>())];
let options = SamplingOptions { samples: 2, sequence_len: 4, seed: 7 };
let blocks = token_blocks(&text, None, 32, &options)?;
assert_eq!(blocks.tokens(), 8);

let attention = AttentionSpec::Grouped(GroupedAttention::new(1, 1, 2, 1e4));
let feed_forward = FeedForward::Dense(MlpSpec::gated(2));
let layer = LayerSpec::new(attention, feed_forward);
let spec = ModelSpec {
    family: "small".into(), hidden: 2, vocab: 32, max_positions: 4, norm_eps: 1e-5,
    norm_weights: NormWeights::Factor, tied_embeddings: true, head_bias: false,
    multipliers: Multipliers::default(), logit_cap: None, layers: vec![layer], extra: None,
    undecoded: None,
    undecoded_experts: false,
};
// A forward pass calls the observer; this one is done by hand.
let mut observer = LayerObserver::new(&spec, 0, ObserverOptions::default())?;
observer.begin_block();
let input = Tensor::new(&[[3.0_f32, 1.0], [4.0, 2.0]], &Device::Cpu)?;
observer.linear_input(LinearId::Attention(Query), &input)?;
let seen = observer.finish()?;
let input = seen.input_of(&spec.linears(0)[0]).ok_or("attention reads its input")?;
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
mod column_squares;
mod document;
mod encoding;
mod error;
mod expert_stream;
mod forward;
mod hessians;
mod layer_run;
mod mass;
pub mod observation_file;
mod observer;
mod random;
mod sampling;
mod stored_layer;
mod sums_check;
mod sums_size;
mod token_row;

pub use document::{CalibrationSource, Content, Document, Documents, Place};
pub use error::Error;
pub use expert_stream::for_each_loaded_expert;
pub use forward::{embed_blocks, passes};
pub use layer_run::{DEVICE_EXPERT_ROWS, LayerRun, Watch, expert_rows};
#[doc(inline)]
pub use observation_file::{
    ObservationPart, PartHead, merge_parts, observation_sha256, read_observation, read_part,
    read_part_head, write_observation, write_observation_to, write_part, write_part_by_layer,
    write_part_to,
};
pub use observer::{LayerObserver, ObserverOptions};
pub use sampling::{
    BlockOrigin, SamplingOptions, TokenBlocks, token_blocks, token_blocks_apart,
    token_blocks_in_groups, token_blocks_in_order,
};
pub use stored_layer::StoredLayer;
pub use sums_size::SumsSize;
pub use token_row::{TokenRow, TokenRowError};
