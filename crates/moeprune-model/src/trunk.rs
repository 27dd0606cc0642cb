//! A decoder layer without its experts.

use std::sync::Arc;

use candle_core::Tensor;
use moeprune_core::{
    FeedForward, LayerNorms, LayerTensor, LinearId, ModelSpec, MoeInput, MoeSpec, TensorId,
    TensorSource,
};

use crate::{
    ActivationSink, Compute, Error, HiddenSum,
    attention::Attention,
    cache::{self, SequenceCache},
    latent::Latent,
    linear::Weights,
    mlp::Mlp,
    norm::RmsNorm,
    ops,
    positions::check_length,
    routed::Routed,
    router::Router,
    runnable,
    sandwich::Sandwich,
    shared::SharedExpert,
};

/// Everything of a decoder layer but its routed experts: attention, norms, router, shared experts, and the
/// residual MLP or the dense one.
///
/// For callers that cannot hold a layer's experts together: the trunk is run over all blocks first and
/// says which tokens each expert gets; then experts are loaded one after the other
/// ([`for_each_expert`](crate::for_each_expert)), and each adds what it makes of its tokens. The
/// result has the bits that [`Layer`](crate::Layer) gives.
///
/// With `x` the layer's input, norms written as functions, and terms that a layer lacks left out:
///
/// ```text
/// h   = x + attention(input_norm(x))
/// out = h + dense(post_attention_norm(h))                               a layer without experts
/// out = x + dense(input_norm(x))                                        one without attention too
/// out = h + residual(residual_norm(h)) + shared(n) + experts(n)         n = post_attention_norm(m),
///                                                                       m = x (Arctic) or h
/// ```
///
/// What is added to `x` or `h` is multiplied by the model's residual multiplier, which most families do
/// not have. Some families norm what blocks make too ([`SandwichNorms`](moeprune_core::SandwichNorms)).
#[derive(Debug)]
pub struct LayerTrunk {
    hidden: usize,
    max_positions: usize,
    /// What each block's output is multiplied by.
    residual_multiplier: f64,
    attention: Option<(RmsNorm, Attention)>,
    feed_forward: Option<(Arc<RmsNorm>, Block)>,
    /// The norms after blocks.
    sandwich: Option<Sandwich>,
}

#[derive(Debug)]
enum Block {
    Dense(Mlp),
    Moe(Box<MoeTrunk>),
}

/// A mixture of experts without its routed experts.
#[derive(Debug)]
struct MoeTrunk {
    router: Router,
    shared: Vec<SharedExpert>,
    latent: Option<Latent>,
    input: MoeInput,
    residual: Option<(RmsNorm, Mlp)>,
    residual_multiplier: f64,
}

/// What a trunk makes of hidden states.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "the two things a trunk makes")]
pub struct TrunkOutput {
    /// The layer's output, its experts' share still missing.
    pub sum: HiddenSum,
    /// Which experts each token goes through; `None` in a layer without experts.
    pub routed: Option<Routed>,
}

impl LayerTrunk {
    /// Reads the trunk of layer `layer` of a model to where it will run.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Shape`] name the tensor; [`Error::Spec`] if the specification
    /// asks for something this crate cannot run, or has no such layer.
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let Some(parts) = spec.layers.get(layer) else {
            let layers = spec.layers.len();
            return Err(Error::Spec(format!("no layer {layer} in a model of {layers}")));
        };
        let weights = Weights { source, compute };
        let norm =
            |tensor| RmsNorm::of_model(weights, TensorId::Layer(layer, tensor), spec.hidden, spec);
        runnable::check_layer(parts, layer)?;
        let block = match &parts.feed_forward {
            FeedForward::Dense(mlp) => {
                let dense = Mlp::load(weights, layer, LinearId::Dense, spec.hidden, mlp)?;
                Some(Block::Dense(dense))
            }
            FeedForward::Moe(moe) => {
                Some(Block::Moe(Box::new(MoeTrunk::load(weights, layer, spec, moe)?)))
            }
            FeedForward::None => None,
            other => return Err(Error::Spec(format!("layer {layer}: no feed-forward {other:?}"))),
        };
        let beside = parts.moe().is_some_and(|moe| moe.residual.is_some());
        let sandwich = match parts.norms {
            LayerNorms::Before => None,
            LayerNorms::Around(norms) => Some(Sandwich::load(weights, layer, spec, norms, beside)?),
            LayerNorms::Named => return Err(runnable::unknown_norms(layer)),
        };
        let attention = Attention::load(weights, layer, spec)?;
        Ok(Self {
            hidden: spec.hidden,
            max_positions: spec.max_positions,
            residual_multiplier: spec.multipliers.residual,
            attention: attention
                .map(|attention| Ok::<_, Error>((norm(LayerTensor::InputNorm)?, attention)))
                .transpose()?,
            feed_forward: block
                .map(|block| Ok::<_, Error>((Arc::new(norm(parts.feed_forward_norm())?), block)))
                .transpose()?,
            sandwich,
        })
    }

    /// Runs the trunk on whole sequences, `[batch, seq, hidden]`, whose tokens see only each
    /// other. Rows of what it gives are the tokens, sequence after sequence. `sink` receives all
    /// but the inputs and outputs of experts.
    ///
    /// # Errors
    /// If the shape does not fit, sequences are longer than the model's positions, the router is
    /// not finite, or the sink fails.
    pub fn forward(
        &self,
        hidden: &Tensor,
        sink: &mut dyn ActivationSink,
    ) -> Result<TrunkOutput, Error> {
        let (batch, seq) = self.batch_of(hidden)?;
        let rows = hidden.reshape((batch * seq, self.hidden))?;
        let mut caches: Vec<_> = (0..batch).map(|_| SequenceCache::starting_at(0)).collect();
        self.forward_ragged(&rows, &vec![seq; batch], &mut caches, sink)
    }

    /// A stored weight, `[rows, cols]`, sharing memory with what runs: zeroing weights in it
    /// changes the trunk. `None` on the CPU in f32, where weights are packed when they are read,
    /// and for a Linear that the trunk does not have.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn weight(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        let in_block = match (linear, &self.feed_forward) {
            (LinearId::Dense(projection), Some((_, Block::Dense(mlp)))) => {
                mlp.stored(projection)?
            }
            (_, Some((_, Block::Moe(moe)))) => moe.stored(linear)?,
            _ => None,
        };
        match (in_block, &self.attention) {
            (None, Some((_, attention))) => attention.stored(linear),
            (found, _) => Ok(found),
        }
    }

    /// Has what the routed experts of a latent width add up to leave that width by this trunk's Linear:
    /// `sum` may have begun with the same layer when that had other weights.
    pub fn take_over(&self, sum: &mut HiddenSum) {
        if let Some((_, Block::Moe(moe))) = &self.feed_forward
            && let Some(latent) = &moe.latent
        {
            sum.leave_by(latent.output());
        }
    }

    /// An expert's output, `[tokens, width]`, in the width of the hidden states.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn in_hidden_width(&self, output: &Tensor) -> Result<Tensor, Error> {
        match &self.feed_forward {
            Some((_, Block::Moe(moe))) => match &moe.latent {
                Some(latent) => latent.output().forward(output),
                None => Ok(output.clone()),
            },
            _ => Ok(output.clone()),
        }
    }

    /// Whether it sees the keys that a layer before it selected.
    pub(crate) fn takes_over_keys(&self) -> bool {
        self.attention.as_ref().is_some_and(|(_, attention)| attention.takes_over_keys())
    }

    /// Batch and length of hidden states.
    pub(crate) fn batch_of(&self, hidden: &Tensor) -> Result<(usize, usize), Error> {
        match *hidden.dims() {
            [batch, seq, width] if width == self.hidden => Ok((batch, seq)),
            ref other => Err(Error::HiddenShape { hidden: self.hidden, got: other.to_vec() }),
        }
    }

    /// As [`forward`](Self::forward) for sequences of different lengths, which continue at
    /// different positions: `x` is `[Σ lens, hidden]`, and there is no padding.
    pub(crate) fn forward_ragged(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<TrunkOutput, Error> {
        let longest = caches.iter().zip(lens).map(|(cache, len)| cache.next() + len).max();
        check_length(longest.unwrap_or(0), self.max_positions)?;
        let (multiplier, sandwich) = (self.residual_multiplier, self.sandwich.as_ref());
        let h = match &self.attention {
            Some((norm, attention)) => {
                let attended = attention.forward(&norm.forward(x)?, lens, caches, sink)?;
                let attended = match sandwich {
                    None => attended,
                    Some(sandwich) => sandwich.attention(&attended)?,
                };
                ops::add(x, &ops::scaled(attended, multiplier)?)?
            }
            None => {
                cache::advance(caches, lens);
                x.clone()
            }
        };
        match &self.feed_forward {
            None => Ok(TrunkOutput { sum: HiddenSum::new(&h, multiplier)?, routed: None }),
            Some((norm, Block::Dense(mlp))) => {
                let output = mlp.forward(&norm.forward(&h)?, LinearId::Dense, sink)?;
                let sum = match sandwich {
                    None => ops::add(&h, &ops::scaled(output, multiplier)?)?,
                    Some(sandwich) => sandwich.dense(&h, &output, multiplier)?,
                };
                Ok(TrunkOutput { sum: HiddenSum::new(&sum, multiplier)?, routed: None })
            }
            Some((norm, Block::Moe(moe))) => {
                let read = moe.read(x, &h)?;
                let normed = norm.forward(&read)?;
                let sum = moe.forward(h, &normed, sandwich, sink)?;
                let (sum, routed) = moe.route(sum, (read, normed), norm, sink)?;
                Ok(TrunkOutput { sum, routed: Some(routed) })
            }
        }
    }
}

impl MoeTrunk {
    fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        moe: &MoeSpec,
    ) -> Result<Self, Error> {
        let residual = match &moe.residual {
            Some(mlp) => {
                let norm = TensorId::Layer(layer, LayerTensor::ResidualNorm);
                let norm = RmsNorm::of_model(weights, norm, spec.hidden, spec)?;
                let mlp = Mlp::load(weights, layer, LinearId::Residual, spec.hidden, mlp)?;
                Some((norm, mlp))
            }
            None => None,
        };
        let shared = moe.shared.iter().enumerate();
        let shared = shared
            .map(|(at, shared)| SharedExpert::load(weights, layer, at, spec.hidden, shared))
            .collect::<Result<_, _>>()?;
        let router = Router::load(weights, layer, spec, moe)?;
        let (input, residual_multiplier) = (moe.input, spec.multipliers.residual);
        let latent = Latent::load(weights, layer, spec.hidden, moe)?;
        Ok(Self { router, shared, latent, input, residual, residual_multiplier })
    }

    /// What the experts read before their norm, of the layer's input `x` and the state `h` after
    /// attention.
    fn read(&self, x: &Tensor, h: &Tensor) -> Result<Tensor, Error> {
        match self.input {
            MoeInput::AfterAttention => Ok(h.clone()),
            MoeInput::LayerInput => Ok(x.clone()),
            other => Err(Error::Spec(format!("no experts' input {other:?}"))),
        }
    }

    /// From the state `h` after attention and what the experts read to the layer's output without its
    /// routed experts.
    fn forward(
        &self,
        h: Tensor,
        normed: &Tensor,
        sandwich: Option<&Sandwich>,
        sink: &mut dyn ActivationSink,
    ) -> Result<HiddenSum, Error> {
        let multiplier = self.residual_multiplier;
        let residual = match &self.residual {
            Some((norm, mlp)) => Some(mlp.forward(&norm.forward(&h)?, LinearId::Residual, sink)?),
            None => None,
        };
        let Some(sandwich) = sandwich else {
            let sum = match residual {
                Some(output) => ops::add(&h, &ops::scaled(output, multiplier)?)?,
                None => h,
            };
            let sum = self.with_shared(sum, normed, multiplier, sink)?;
            return HiddenSum::new(&sum, multiplier);
        };
        let sum = self.with_shared(h.zeros_like()?, normed, 1.0, sink)?;
        HiddenSum::normed_after(&sum, sandwich.after_experts(h, residual, multiplier)?)
    }

    /// Adds what shared experts make.
    fn with_shared(
        &self,
        mut sum: Tensor,
        normed: &Tensor,
        multiplier: f64,
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        for shared in &self.shared {
            sum = ops::add(&sum, &ops::scaled(shared.forward(normed, sink)?, multiplier)?)?;
        }
        Ok(sum)
    }

    /// The tokens on their way to the routed experts, whose outputs are added to `sum`; `read` is what
    /// experts read before their norm and after it.
    fn route(
        &self,
        sum: HiddenSum,
        (read, normed): (Tensor, Tensor),
        norm: &Arc<RmsNorm>,
        sink: &mut dyn ActivationSink,
    ) -> Result<(HiddenSum, Routed), Error> {
        let by_expert = self.router.route(&read, &normed, sink)?;
        let side = self.router.gate_side();
        match &self.latent {
            None => Ok((sum, Routed::new(read, Some(Arc::clone(norm)), by_expert, side))),
            Some(latent) => {
                let read = latent.enter(&normed, sink)?;
                Ok((latent.leave_from(sum, &read)?, Routed::new(read, None, by_expert, side)))
            }
        }
    }

    /// A stored weight of it; `None` where it was widened, and for what it does not have.
    fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match (linear, &self.residual) {
            (LinearId::Router, _) => self.router.stored(),
            (LinearId::Residual(projection), Some((_, mlp))) => mlp.stored(projection),
            (LinearId::Shared(at, _), _) => {
                self.shared.get(at).map_or(Ok(None), |shared| shared.stored(linear))
            }
            (MoeSpec::TO_LATENT | MoeSpec::FROM_LATENT, _) => {
                self.latent.as_ref().map_or(Ok(None), |latent| latent.stored(linear))
            }
            _ => Ok(None),
        }
    }
}
