//! `[experts.fused]`

use moeprune_core::{LayerTensor, LinearId, MlpProjection, PartName};
use serde::Deserialize;

/// All experts of a layer in one tensor for each kind of matrix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FusedForm {
    #[serde(default)]
    pub(crate) layout: SlabLayout,
    /// Whether rows of gate and up take turns, and do not follow each other.
    #[serde(default)]
    pub(crate) interleaved: bool,
    /// Gate and up in one slab.
    pub(crate) gate_up: Option<String>,
    /// Gate, in a tensor beside that of `up`.
    pub(crate) gate: Option<String>,
    /// Up, of experts without a gate or with one in a tensor of its own.
    pub(crate) up: Option<String>,
    pub(crate) down: String,
    pub(crate) gate_up_bias: Option<String>,
    pub(crate) down_bias: Option<String>,
}

/// How the matrix of an expert is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SlabLayout {
    /// `[experts, out, in]`
    #[default]
    OutIn,
    /// `[experts, in, out]`
    InOut,
    /// As the shape of the layer's down tensor says: files of both kinds are about.
    ByDown,
}

/// What a tensor with all experts of a layer holds of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slab {
    /// Gate and up, or up of experts without a gate.
    GateUp,
    Gate,
    Up,
    Down,
    GateUpBias,
    DownBias,
    /// Something in a form that is not decoded.
    Opaque(PartName),
}

impl FusedForm {
    /// Whether each expert has a gate.
    pub(super) fn is_gated(&self) -> bool {
        self.gate_up.is_some() || self.gate.is_some()
    }

    /// The names of its tensors, after the layer's prefix.
    pub(super) fn names(&self) -> impl Iterator<Item = (Slab, &str)> {
        let up = if self.gate.is_some() { Slab::Up } else { Slab::GateUp };
        [
            (Slab::GateUp, self.gate_up.as_ref()),
            (Slab::Gate, self.gate.as_ref()),
            (up, self.up.as_ref()),
            (Slab::Down, Some(&self.down)),
            (Slab::GateUpBias, self.gate_up_bias.as_ref()),
            (Slab::DownBias, self.down_bias.as_ref()),
        ]
        .into_iter()
        .filter_map(|(slab, name)| Some((slab, name?.as_str())))
    }
}

impl Slab {
    /// The tensors of expert `expert` in a slab, in their order there.
    pub(crate) fn tensors(self, expert: usize, gated: bool) -> Vec<LayerTensor> {
        use MlpProjection::{Down, Gate, Up};
        let projections: &[MlpProjection] = match self {
            Self::Opaque(name) => return vec![LayerTensor::OfExpert(expert, name)],
            Self::GateUp | Self::GateUpBias if gated => &[Gate, Up],
            Self::Gate => &[Gate],
            Self::GateUp | Self::GateUpBias | Self::Up => &[Up],
            Self::Down | Self::DownBias => &[Down],
        };
        let tensor = |&projection: &MlpProjection| {
            let id = LinearId::Expert(expert, projection);
            match self {
                Self::GateUpBias | Self::DownBias => LayerTensor::Bias(id),
                _ => LayerTensor::Linear(id),
            }
        };
        projections.iter().map(tensor).collect()
    }
}
