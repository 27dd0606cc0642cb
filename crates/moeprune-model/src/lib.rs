/*!
Forward passes of mixture-of-experts decoders on candle, one layer at a time, and greedy generation.

# Brief overview

A [`Layer`] is read from any [`TensorSource`](moeprune_core::TensorSource) and run by
[`Layer::forward`], which shows what happens inside to an [`ActivationSink`]: the input of
each Linear, what the router chose, what each expert put out. [`Embedding`] and [`Head`] are the
ends of the model, so that a driver can walk through a model of any size with one layer in memory.
[`LanguageModel`] is all of a model and gives logits, the log-likelihood of a text, and greedy continuations of
many prompts at once. Its experts are in memory too, or, of a model that does not fit, come from an
[`ExpertProvider`] that reads them when they are needed ([`StreamedExperts`]).

# Example

Counts the tokens each expert gets in the first layer of a model:

```
# use moeprune_core::*;
use moeprune_model::{
    ActivationSink, Compute, Embedding, Error, Layer, RoutingChoice,
};

struct Load(Vec<u64>);

impl ActivationSink for Load {
    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        for &expert in choice.indices {
            self.0[expert as usize] += 1;
        }
        Ok(())
    }
}

fn load_of_first_layer(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    tokens: &[u32],
) -> Result<Vec<u64>, Error> {
    let compute = Compute::cpu();
    let hidden = Embedding::load(source, spec, &compute)?.embed(tokens)?.unsqueeze(0)?;
    let layer = Layer::load(source, spec, 0, &compute)?;
    let mut load = Load(vec![0; spec.layers[0].moe().map_or(0, |moe| moe.experts)]);
    layer.forward(&hidden, 0, None, &mut load)?;
    Ok(load.0)
}
# struct Pattern(ModelSpec);
# impl TensorSource for Pattern {
#     fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
#         let shape = match id {
#             TensorId::Embedding => vec![self.0.vocab, self.0.hidden],
#             TensorId::Layer(l, LayerTensor::Linear(linear)) => {
#                 let linears = self.0.linears(l);
#                 let shape = linears.iter().find(|s| s.id == linear).ok_or("no such Linear")?;
#                 vec![shape.rows, shape.cols]
#             }
#             _ => vec![self.0.hidden],
#         };
#         let len: usize = shape.iter().product();
#         let values: Vec<f32> = (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5).collect();
#         Ok(StoredWeight::alone(TensorBytes::encode(Dtype::F32, shape, &values)?)?)
#     }
# }
# let moe = MoeSpec {
#     experts: 4, top_k: 2, router: RouterSpec::softmax(true), expert: MlpSpec::gated(6),
#     shared: vec![], residual: None, opaque: vec![], input: MoeInput::AfterAttention,
#     latent: None,
# };
# let attention = AttentionSpec::Grouped(GroupedAttention::new(2, 1, 4, 1e4));
# let layer = LayerSpec::new(attention, FeedForward::Moe(moe));
# let spec = ModelSpec {
#     family: "example".into(), hidden: 8, vocab: 16, max_positions: 32, norm_eps: 1e-5,
#     norm_weights: NormWeights::Factor, tied_embeddings: true, head_bias: false,
#     multipliers: Multipliers::default(), logit_cap: None, layers: vec![layer], extra: None,
#     undecoded: None,
#     undecoded_experts: false,
# };
# let source = Pattern(spec.clone());
let load = load_of_first_layer(&source, &spec, &[1, 5, 9, 2, 14])?;
assert_eq!(load.iter().sum::<u64>(), 5 * 2); // each of five tokens goes through two experts
# Ok::<(), Error>(())
```

# Why it is so

**Sequences do not influence each other.** Batches are not padded: tokens of all sequences stand in
one matrix, and attention goes sequence by sequence. On the CPU the matrix products give a row the
same bits beside any other rows, experts are added in ascending order, and nothing depends
on the number of threads. So a score does not change with the batch size, and two runs agree.

**A layer can be run without holding it.** [`LayerTrunk`] is a layer without its experts: it is run
first and says which tokens go to whom. Then [`for_each_expert`] reads the experts one after the
other (or [`for_each_uploaded_expert`], which also packs them on threads of its own), and each adds what it makes of its own tokens. [`Layer`] does the same with all experts in
memory, and gives the same bits.

**f32 on the CPU has code of its own.** candle's operations cost more than the arithmetic in small
models, and its CPU products in half precision widen both operands at every call. Weights are
packed once when they are read, for the products of `moeprune-linalg` (exactly: every bf16 and f16 is an f32), and
products, norms, attention and gates run on slices. Every other device or type takes candle's operations; both are
tested against the same references.

**Threads.** Products and attention use the rayon pool they are called in
(`ThreadPool::install`, or the global one), and only when the work is worth it.

**All experts take part in the softmax.** It is taken over all of them in f32; then the largest
are kept and, if the model does so, divided by their sum. After that
division they depend on the chosen logits only, which is why removing an expert's router row
changes nothing for tokens that did not choose it. Scores by the logistic function depend on one logit
each, so there the same holds without division.
*/

mod attention;
mod buffers;
mod cache;
mod compute;
#[cfg(feature = "cuda")]
mod cuda;
mod divided;
mod dtype;
mod ends;
mod error;
mod expert;
mod experts;
mod exponential;
mod generate;
mod hidden_sum;
mod host_weights;
mod language_model;
mod latent;
mod layer;
mod likelihood;
mod linear;
mod mlp;
mod norm;
mod ops;
mod positions;
mod prefix;
mod product;
mod reading;
mod rotary;
mod routed;
mod router;
mod routing;
mod runnable;
mod sandwich;
mod selected_keys;
mod shared;
mod shared_beginning;
mod sink;
mod streamed_experts;
mod trunk;
mod unpacked;

pub use attention::DEVICE_QUERIES;
pub use cache::LayerCache;
pub use compute::Compute;
pub use ends::{Embedding, Head};
pub use error::Error;
pub use expert::{
    Expert, ExpertTensors, for_each_expert, for_each_uploaded_expert, packs_from_rows,
};
pub use experts::{ExpertProvider, HeldExperts};
pub use generate::GenerationOptions;
pub use hidden_sum::HiddenSum;
pub use language_model::LanguageModel;
pub use layer::Layer;
pub use likelihood::{BranchLikelihood, Branches};
pub use routed::Routed;
pub use router::Router;
pub use routing::Gating;
pub use runnable::check_runnable;
pub use sink::{ActivationSink, NoSink, RoutingChoice};
pub use streamed_experts::{StreamedCounts, StreamedExperts};
pub use trunk::{LayerTrunk, TrunkOutput};
