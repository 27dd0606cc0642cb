//! Mamba-2.

use candle_core::Tensor;
use moeprune_core::{LinearId, Mamba2 as Shape, ModelSpec, TensorId};

use super::{
    convolution::Convolution,
    selective_state::{StateHeads, StateInputs},
    softplus,
};
use crate::{
    ActivationSink, Error,
    cache::{self, SequenceCache},
    linear::{Linear, Weights},
    ops,
};

/// Mamba-2, in place of attention.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    shape: Shape,
    input: Linear,
    convolution: Convolution,
    /// `[heads]`
    log_decay: Tensor,
    /// `[heads]`
    step_bias: Tensor,
    /// `[heads]`
    skip: Tensor,
    /// `[inner]`
    norm: Tensor,
    norm_eps: f64,
    output: Linear,
}

impl Mamba2 {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        shape: &Shape,
    ) -> Result<Self, Error> {
        let Shape { heads, head_dim, groups, state, .. } = *shape;
        if [heads, head_dim, groups, state].contains(&0) || heads % groups != 0 {
            return Err(Error::Spec(format!(
                "layer {layer}: {heads} heads of width {head_dim} in {groups} groups with a state of \
                 {state} columns: heads must be a multiple of groups, and no number 0"
            )));
        }
        let id = |tensor| TensorId::Layer(layer, tensor);
        let wide = |tensor, len| weights.wide(id(tensor), &[len]);
        let linear = |linear, rows, inputs| {
            weights.linear_with(&[(TensorId::linear(layer, linear), rows)], inputs, shape.biases)
        };
        let convolved = [Shape::CONVOLUTION];
        let channels = shape.channels();
        let mut convolution =
            Convolution::load(weights, layer, &convolved, channels, shape.kernel)?;
        if shape.convolution_bias {
            convolution = convolution.with_bias(wide(Shape::CONVOLUTION_BIAS, channels)?)?;
        }
        Ok(Self {
            input: linear(Shape::INPUT, shape.input_rows(), spec.hidden)?,
            convolution,
            log_decay: wide(Shape::LOG_DECAY, heads)?,
            step_bias: wide(Shape::STEP_BIAS, heads)?,
            skip: wide(Shape::SKIP, heads)?,
            norm: wide(Shape::NORM, shape.inner())?,
            norm_eps: spec.norm_eps,
            output: linear(Shape::OUTPUT, spec.hidden, shape.inner())?,
            shape: shape.clone(),
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match linear {
            Shape::INPUT => self.input.stored(),
            Shape::OUTPUT => self.output.stored(),
            _ => Ok(None),
        }
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        let Shape { heads, head_dim, groups, state, .. } = self.shape;
        let (inner, channels) = (self.shape.inner(), self.shape.channels());
        let group_width = self.shape.group_width();
        sink.linear_input(Shape::INPUT, x)?;
        let projected = self.input.forward(x)?;
        let part = |start, width| Ok::<_, Error>(projected.narrow(1, start, width)?.contiguous()?);
        let convolved = part(inner, channels)?;
        let convolved = self.convolution.forward(&convolved, lens, caches)?.silu()?;
        let steps = self.steps(&part(inner + channels, heads)?)?;
        let rate = self.log_decay.exp()?.neg()?;
        let of = |start, width| Ok::<_, Error>(convolved.narrow(1, start, width)?.contiguous()?);
        let inputs = StateInputs {
            values: of(0, inner)?,
            keys: of(inner, group_width)?,
            queries: of(inner + group_width, group_width)?,
            decay: steps.broadcast_mul(&rate)?.exp()?,
            steps,
        };
        let passed_on = self.passed_on(&inputs.values)?;
        let mixed = StateHeads { heads, groups, head_dim, state }.run(inputs, lens, caches)?;
        cache::advance(caches, lens);
        let mixed = (mixed + passed_on)?;
        let gates = part(0, inner)?.to_dtype(mixed.dtype())?.silu()?;
        let mixed = self.normed(&(mixed * gates)?)?.to_dtype(x.dtype())?;
        sink.linear_input(Shape::OUTPUT, &mixed)?;
        self.output.forward(&mixed)
    }

    /// How far each head's state moves, `[tokens, heads]`.
    fn steps(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = x.to_dtype(self.step_bias.dtype())?.broadcast_add(&self.step_bias)?;
        Ok(softplus(&x)?.maximum(self.shape.least_step)?)
    }

    /// What of its input each head adds to its output.
    fn passed_on(&self, values: &Tensor) -> Result<Tensor, Error> {
        let Shape { heads, head_dim, .. } = self.shape;
        let by_head = values.reshape(((), heads, head_dim))?;
        Ok(by_head.broadcast_mul(&self.skip.reshape((1, heads, 1))?)?.reshape(values.shape())?)
    }

    /// The norm of each group of heads, each with its part of the weight.
    fn normed(&self, x: &Tensor) -> Result<Tensor, Error> {
        let groups = self.shape.groups;
        let width = self.shape.inner() / groups;
        let one = Tensor::ones(width, x.dtype(), x.device())?;
        let by_group = x.contiguous()?.reshape(((), width))?;
        let normed = ops::rms_norm(&by_group, &one, self.norm_eps)?.reshape(x.shape())?;
        Ok(normed.broadcast_mul(&self.norm)?)
    }
}
