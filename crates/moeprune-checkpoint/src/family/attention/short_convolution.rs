//! `kind = "short_convolution"`

use moeprune_core::{LayerTensor, ShortConvolution};
use serde::Deserialize;

use super::{Conditional, Key, Model};
use crate::Error;

/// A gated short convolution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShortConvolutionForm {
    kernel: Key<usize>,
    /// Whether the biases that are named are there; absent: they are.
    biases: Option<Key<bool>>,
    tensors: Names,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    input: String,
    output: String,
    convolution: String,
    input_bias: Option<String>,
    output_bias: Option<String>,
    convolution_bias: Option<String>,
}

impl ShortConvolutionForm {
    fn biases(&self) -> [(LayerTensor, &Option<String>); 3] {
        [
            (LayerTensor::Bias(ShortConvolution::INPUT), &self.tensors.input_bias),
            (LayerTensor::Bias(ShortConvolution::OUTPUT), &self.tensors.output_bias),
            (ShortConvolution::CONVOLUTION_BIAS, &self.tensors.convolution_bias),
        ]
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        let names = &self.tensors;
        let always = [
            (LayerTensor::Linear(ShortConvolution::INPUT), &*names.input),
            (LayerTensor::Linear(ShortConvolution::OUTPUT), &names.output),
            (ShortConvolution::CONVOLUTION, &names.convolution),
        ];
        let biases =
            self.biases().into_iter().filter_map(|(id, name)| Some((id, name.as_deref()?)));
        always.into_iter().chain(biases)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if matches!(self.biases().iter().filter(|(_, name)| name.is_some()).count(), 0 | 3) {
            return Ok(());
        }
        let reason = "`tensors` of a short convolution must name all three biases or none";
        Err(Error::Descriptor { reason: reason.to_owned() })
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<ShortConvolution, Error> {
        let biases = Conditional { when: self.biases.as_ref(), tensors: &self.biases() };
        Ok(ShortConvolution {
            kernel: self.kernel.needed(model.config)?,
            biases: biases.are_there(model)?,
        })
    }
}
