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
    cache::SequenceCache,
    linear::Weights,
    mlp::{GatedMlp, MlpShape},
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
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: Arc<RmsNorm>,
    /// The norms after blocks.
    sandwich: Option<Sandwich>,
    feed_forward: Block,
}

#[derive(Debug)]
enum Block {
    Dense(GatedMlp),
    Moe(Box<MoeTrunk>),
}

/// A mixture of experts without its routed experts.
#[derive(Debug)]
struct MoeTrunk {
    router: Router,
    shared: Vec<SharedExpert>,
    input: MoeInput,
    residual: Option<(RmsNorm, GatedMlp)>,
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
        let feed_forward = match &parts.feed_forward {
            FeedForward::Dense(mlp) => {
                let shape = MlpShape::new(spec.hidden, mlp);
                Block::Dense(GatedMlp::load(weights, layer, LinearId::Dense, shape)?)
            }
            FeedForward::Moe(moe) => {
                Block::Moe(Box::new(MoeTrunk::load(weights, layer, spec, moe)?))
            }
            other => return Err(Error::Spec(format!("layer {layer}: no feed-forward {other:?}"))),
        };
        let beside = parts.moe().is_some_and(|moe| moe.residual.is_some());
        let sandwich = match parts.norms {
            LayerNorms::Before => None,
            LayerNorms::Around(norms) => Some(Sandwich::load(weights, layer, spec, norms, beside)?),
        };
        Ok(Self {
            hidden: spec.hidden,
            max_positions: spec.max_positions,
            residual_multiplier: spec.multipliers.residual,
            input_norm: norm(LayerTensor::InputNorm)?,
            attention: Attention::load(weights, layer, spec)?,
            post_attention_norm: Arc::new(norm(LayerTensor::PostAttentionNorm)?),
            sandwich,
            feed_forward,
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
    /// changes the trunk. `None` on the CPU in f32, where weights are widened when they are read,
    /// and for a Linear that the trunk does not have.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn weight(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match (linear, &self.feed_forward) {
            (LinearId::Dense(projection), Block::Dense(mlp)) => mlp.stored(projection),
            (_, Block::Moe(moe)) => match moe.stored(linear)? {
                Some(weight) => Ok(Some(weight)),
                None => self.attention.stored(linear),
            },
            _ => self.attention.stored(linear),
        }
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
        let attended = {
            let normed = self.input_norm.forward(x)?;
            let attended = self.attention.forward(&normed, lens, caches, sink)?;
            match &self.sandwich {
                None => attended,
                Some(sandwich) => sandwich.attention(&attended)?,
            }
        };
        let multiplier = self.residual_multiplier;
        let h = ops::add(x, &ops::scaled(attended, multiplier)?)?;
        match &self.feed_forward {
            Block::Dense(mlp) => {
                let normed = self.post_attention_norm.forward(&h)?;
                let output = mlp.forward(&normed, LinearId::Dense, sink)?;
                let sum = match &self.sandwich {
                    None => ops::add(&h, &ops::scaled(output, multiplier)?)?,
                    Some(sandwich) => sandwich.dense(&h, &output, multiplier)?,
                };
                Ok(TrunkOutput { sum: HiddenSum::new(&sum, multiplier)?, routed: None })
            }
            Block::Moe(moe) => {
                let read = moe.read(x, &h)?;
                let normed = self.post_attention_norm.forward(&read)?;
                let sum = moe.forward(h, &normed, self.sandwich.as_ref(), sink)?;
                let by_expert = moe.router.route(&read, &normed, sink)?;
                let norm = Arc::clone(&self.post_attention_norm);
                let routed = Routed::new(read, norm, by_expert, moe.router.gate_side());
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
                let shape = MlpShape::new(spec.hidden, mlp);
                Some((norm, GatedMlp::load(weights, layer, LinearId::Residual, shape)?))
            }
            None => None,
        };
        let shared = moe.shared.iter().enumerate();
        let shared = shared
            .map(|(at, shared)| SharedExpert::load(weights, layer, at, spec.hidden, shared))
            .collect::<Result<_, _>>()?;
        let router = Router::load(weights, layer, spec, moe)?;
        let (input, residual_multiplier) = (moe.input, spec.multipliers.residual);
        Ok(Self { router, shared, input, residual, residual_multiplier })
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

    /// A stored weight of it; `None` where it was widened, and for what it does not have.
    fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match (linear, &self.residual) {
            (LinearId::Router, _) => self.router.stored(),
            (LinearId::Residual(projection), Some((_, mlp))) => mlp.stored(projection),
            (LinearId::Shared(at, _), _) => {
                self.shared.get(at).map_or(Ok(None), |shared| shared.stored(linear))
            }
            _ => Ok(None),
        }
    }
}
