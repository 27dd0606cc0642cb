//! `kind = "kimi_delta"`

use moeprune_core::{KimiDeltaAttention, LayerTensor};
use serde::Deserialize;

use super::{Key, Model};
use crate::Error;

/// Kimi delta attention.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KimiDeltaForm {
    heads: Key<usize>,
    head_dim: Key<usize>,
    kernel: Key<usize>,
    tensors: Names,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    query: String,
    key: String,
    value: String,
    output: String,
    decay_a: String,
    decay_b: String,
    gate_a: String,
    gate_b: String,
    beta: String,
    query_convolution: String,
    key_convolution: String,
    value_convolution: String,
    log_decay: String,
    decay_bias: String,
    output_norm: String,
}

impl KimiDeltaForm {
    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        let names = &self.tensors;
        let linears = [
            (KimiDeltaAttention::QUERY, &names.query),
            (KimiDeltaAttention::KEY, &names.key),
            (KimiDeltaAttention::VALUE, &names.value),
            (KimiDeltaAttention::OUTPUT, &names.output),
            (KimiDeltaAttention::DECAY_A, &names.decay_a),
            (KimiDeltaAttention::DECAY_B, &names.decay_b),
            (KimiDeltaAttention::GATE_A, &names.gate_a),
            (KimiDeltaAttention::GATE_B, &names.gate_b),
            (KimiDeltaAttention::BETA, &names.beta),
        ];
        let others = [
            (KimiDeltaAttention::QUERY_CONVOLUTION, &names.query_convolution),
            (KimiDeltaAttention::KEY_CONVOLUTION, &names.key_convolution),
            (KimiDeltaAttention::VALUE_CONVOLUTION, &names.value_convolution),
            (KimiDeltaAttention::LOG_DECAY, &names.log_decay),
            (KimiDeltaAttention::DECAY_BIAS, &names.decay_bias),
            (KimiDeltaAttention::NORM, &names.output_norm),
        ];
        let linears = linears.map(|(id, name)| (LayerTensor::Linear(id), name));
        linears.into_iter().chain(others).map(|(id, name)| (id, name.as_str()))
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<KimiDeltaAttention, Error> {
        Ok(KimiDeltaAttention {
            heads: self.heads.needed(model.config)?,
            head_dim: self.head_dim.needed(model.config)?,
            kernel: self.kernel.needed(model.config)?,
        })
    }
}
