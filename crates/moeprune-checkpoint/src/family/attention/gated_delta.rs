//! `kind = "gated_delta"`

use moeprune_core::{DeltaProjections, GatedDeltaNet, LayerTensor};
use serde::Deserialize;

use super::{Key, Model};
use crate::Error;

/// A gated delta net.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatedDeltaForm {
    #[serde(default = "key_heads")]
    key_heads: Key<usize>,
    #[serde(default = "value_heads")]
    value_heads: Key<usize>,
    #[serde(default = "key_dim")]
    key_dim: Key<usize>,
    #[serde(default = "value_dim")]
    value_dim: Key<usize>,
    #[serde(default = "kernel")]
    kernel: Key<usize>,
    tensors: Names,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    /// Projections by key head: both are named, or the four below.
    qkvz: Option<String>,
    ba: Option<String>,
    qkv: Option<String>,
    z: Option<String>,
    b: Option<String>,
    a: Option<String>,
    output: String,
    convolution: String,
    log_decay: String,
    decay_bias: String,
    output_norm: String,
}

fn key_heads() -> Key<usize> {
    Key::any_of(&["linear_num_key_heads"])
}

fn value_heads() -> Key<usize> {
    Key::any_of(&["linear_num_value_heads"])
}

fn key_dim() -> Key<usize> {
    Key::any_of(&["linear_key_head_dim"])
}

fn value_dim() -> Key<usize> {
    Key::any_of(&["linear_value_head_dim"])
}

fn kernel() -> Key<usize> {
    Key::any_of(&["linear_conv_kernel_dim"])
}

impl GatedDeltaForm {
    pub(super) fn slots(&self) -> impl Iterator<Item = (LayerTensor, &str)> {
        let names = &self.tensors;
        let linear = LayerTensor::Linear;
        let always = [
            (linear(GatedDeltaNet::OUTPUT), &*names.output),
            (GatedDeltaNet::CONVOLUTION, &names.convolution),
            (GatedDeltaNet::LOG_DECAY, &names.log_decay),
            (GatedDeltaNet::DECAY_BIAS, &names.decay_bias),
            (GatedDeltaNet::NORM, &names.output_norm),
        ];
        let some = [
            (GatedDeltaNet::QKVZ, &names.qkvz),
            (GatedDeltaNet::BA, &names.ba),
            (GatedDeltaNet::QKV, &names.qkv),
            (GatedDeltaNet::Z, &names.z),
            (GatedDeltaNet::B, &names.b),
            (GatedDeltaNet::A, &names.a),
        ];
        let some =
            some.into_iter().filter_map(move |(id, name)| Some((linear(id), name.as_deref()?)));
        always.into_iter().chain(some)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.projections().map(|_| ())
    }

    fn projections(&self) -> Result<DeltaProjections, Error> {
        let Names { qkvz, ba, qkv, z, b, a, .. } = &self.tensors;
        match ([qkvz, ba].map(Option::is_some), [qkv, z, b, a].map(Option::is_some)) {
            ([true, true], [false, false, false, false]) => Ok(DeltaProjections::ByKeyHead),
            ([false, false], [true, true, true, true]) => Ok(DeltaProjections::Apart),
            _ => {
                let reason =
                    "`tensors` of a gated delta net must name qkvz and ba, or qkv, z, b and a";
                Err(Error::Descriptor { reason: reason.to_owned() })
            }
        }
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<GatedDeltaNet, Error> {
        let config = model.config;
        let (key_heads, value_heads) =
            (self.key_heads.needed(config)?, self.value_heads.needed(config)?);
        if !value_heads.is_multiple_of(key_heads) {
            return Err(config.refuse(format!(
                "`{}` is {value_heads}, not a multiple of `{}`, {key_heads}",
                self.value_heads.shown(),
                self.key_heads.shown()
            )));
        }
        let (key_dim, value_dim) = (self.key_dim.needed(config)?, self.value_dim.needed(config)?);
        for (heads, dim) in [(key_heads, key_dim), (value_heads, value_dim)] {
            if heads.checked_mul(dim).is_none_or(|width| width > 1 << 31) {
                return Err(config.refuse(format!("{heads} heads of width {dim} are too wide")));
            }
        }
        Ok(GatedDeltaNet {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            kernel: self.kernel.needed(config)?,
            projections: self.projections()?,
        })
    }
}
