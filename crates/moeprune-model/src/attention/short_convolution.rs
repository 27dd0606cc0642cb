//! Gated short convolutions.

use candle_core::Tensor;
use moeprune_core::{LinearId, ShortConvolution as Shape, TensorId};

use super::convolution::Convolution;
use crate::{
    ActivationSink, Error,
    cache::{self, SequenceCache},
    linear::{Linear, Weights},
};

/// `output(c ∘ convolution(b ∘ u))` with `b | c | u = input(x)`
#[derive(Debug)]
pub(crate) struct ShortConvolution {
    hidden: usize,
    input: Linear,
    convolution: Convolution,
    output: Linear,
}

impl ShortConvolution {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        shape: &Shape,
    ) -> Result<Self, Error> {
        let linear = |linear, rows| {
            weights.linear_with(&[(TensorId::linear(layer, linear), rows)], hidden, shape.biases)
        };
        let convolved = [Shape::CONVOLUTION];
        let mut convolution = Convolution::load(weights, layer, &convolved, hidden, shape.kernel)?;
        if shape.biases {
            let bias = TensorId::Layer(layer, Shape::CONVOLUTION_BIAS);
            convolution = convolution.with_bias(weights.wide(bias, &[hidden])?)?;
        }
        Ok(Self {
            hidden,
            input: linear(Shape::INPUT, 3 * hidden)?,
            convolution,
            output: linear(Shape::OUTPUT, hidden)?,
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
        sink.linear_input(Shape::INPUT, x)?;
        let thirds = self.input.forward(x)?;
        let third = |at: usize| thirds.narrow(1, at * self.hidden, self.hidden);
        let convolved = self.convolution.forward(&(third(0)? * third(2)?)?, lens, caches)?;
        cache::advance(caches, lens);
        let mixed = (third(1)?.contiguous()? * convolved.to_dtype(x.dtype())?)?;
        sink.linear_input(Shape::OUTPUT, &mixed)?;
        self.output.forward(&mixed)
    }
}
