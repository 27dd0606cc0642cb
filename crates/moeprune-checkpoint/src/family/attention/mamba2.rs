//! `kind = "mamba2"`

use moeprune_core::{LayerTensor, Mamba2};
use serde::Deserialize;

use super::{Conditional, Key, Model};
use crate::{Error, config::ConfigValue, number::real};

/// Mamba-2.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mamba2Form {
    heads: Key<usize>,
    head_dim: Key<usize>,
    groups: Key<usize>,
    state: Key<usize>,
    kernel: Key<usize>,
    /// Absent: 0.
    least_step: Option<Key<Step>>,
    /// Whether the bias of the convolution is there, if it is named; absent: it is.
    convolution_bias: Option<Key<bool>>,
    /// Whether the two other biases that are named are there; absent: they are.
    biases: Option<Key<bool>>,
    tensors: Names,
}

/// A number that is not negative.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
struct Step(f64);

impl ConfigValue for Step {
    const EXPECTED: &'static str = "a number that is not negative";

    fn from_json(text: &str) -> Option<Self> {
        real(text).filter(|step| step.is_finite() && *step >= 0.0).map(Self)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    input: String,
    output: String,
    convolution: String,
    log_decay: String,
    step_bias: String,
    skip: String,
    output_norm: String,
    convolution_bias: Option<String>,
    input_bias: Option<String>,
    output_bias: Option<String>,
}

impl Names {
    fn biases(&self) -> [(LayerTensor, &Option<String>); 2] {
        [
            (LayerTensor::Bias(Mamba2::INPUT), &self.input_bias),
            (LayerTensor::Bias(Mamba2::OUTPUT), &self.output_bias),
        ]
    }

    fn convolution_bias(&self) -> [(LayerTensor, &Option<String>); 1] {
        [(Mamba2::CONVOLUTION_BIAS, &self.convolution_bias)]
    }
}

impl Mamba2Form {
    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        let names = &self.tensors;
        let always = [
            (LayerTensor::Linear(Mamba2::INPUT), &*names.input),
            (LayerTensor::Linear(Mamba2::OUTPUT), &names.output),
            (Mamba2::CONVOLUTION, &names.convolution),
            (Mamba2::LOG_DECAY, &names.log_decay),
            (Mamba2::STEP_BIAS, &names.step_bias),
            (Mamba2::SKIP, &names.skip),
            (Mamba2::NORM, &names.output_norm),
        ];
        let biases = names.biases().into_iter().chain(names.convolution_bias());
        always.into_iter().chain(biases.filter_map(|(id, name)| Some((id, name.as_deref()?))))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.tensors.input_bias.is_some() == self.tensors.output_bias.is_some() {
            return Ok(());
        }
        let reason = "`tensors` of mamba2 must name both input_bias and output_bias or none";
        Err(Error::Descriptor { reason: reason.to_owned() })
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<Mamba2, Error> {
        let config = model.config;
        let of_tensors = |when: &Option<Key<bool>>, tensors: &[(LayerTensor, &Option<String>)]| {
            Conditional { when: when.as_ref(), tensors }.are_there(model)
        };
        let (heads, groups) = (self.heads.needed(config)?, self.groups.needed(config)?);
        if !heads.is_multiple_of(groups) {
            return Err(config.refuse(format!(
                "`{}` is {heads}, not a multiple of `{}`, {groups}",
                self.heads.shown(),
                self.groups.shown()
            )));
        }
        let (head_dim, state) = (self.head_dim.needed(config)?, self.state.needed(config)?);
        for (number, width) in [(heads, head_dim), (groups, state)] {
            if number.checked_mul(width).is_none_or(|wide| wide > 1 << 31) {
                return Err(config.refuse(format!("{number} times {width} is too wide")));
            }
        }
        let least_step = match &self.least_step {
            Some(key) => key.needed(config)?.0,
            None => 0.0,
        };
        Ok(Mamba2 {
            heads,
            head_dim,
            groups,
            state,
            kernel: self.kernel.needed(config)?,
            least_step,
            convolution_bias: of_tensors(&self.convolution_bias, &self.tensors.convolution_bias())?,
            biases: of_tensors(&self.biases, &self.tensors.biases())?,
        })
    }
}
