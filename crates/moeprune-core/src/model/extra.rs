//! Layers behind the decoder's: those that predict several tokens at once (multi-token prediction).
//!
//! They have parts as decoder layers have, and lose experts with them. No forward pass runs them, and
//! no denominator of sparsity counts them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{LayerSpec, ModelSpec, MoeSpec, Part};

/// Layers numbered on from the decoder's last.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ExtraLayers {
    /// The layers in order. Empty: nothing in them is known as a part, or they are not stored.
    pub layers: Vec<LayerSpec>,
    /// What the names of each layer's tensors begin with (`mtp.layers.0`), where that is not as of the
    /// decoder's layers; empty otherwise.
    pub names: Vec<String>,
    /// Whether any tensor of them is stored. If not, the config alone counts them.
    pub is_stored: bool,
    /// What pruning does with them unless a request says otherwise.
    pub policy: ExtraPolicy,
}

/// What pruning does with extra layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum ExtraPolicy {
    /// They lose experts until they have as many as a decoder layer.
    Prune,
    /// Their tensors are copied as they are, byte for byte.
    Keep,
    /// Their tensors are left out, and the config says that there are none.
    Drop,
}

impl ModelSpec {
    /// A layer by its number: of the decoder's, or behind them.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Option<&LayerSpec> {
        match layer.checked_sub(self.layers.len()) {
            None => self.layers.get(layer),
            Some(behind) => self.extra.as_ref()?.layers.get(behind),
        }
    }

    /// What messages call a layer: `layer 4`, or `layer 4 (mtp.layers.0)` where it has a name of its own.
    #[must_use]
    pub fn layer_name(&self, layer: usize) -> String {
        let name = layer.checked_sub(self.layers.len());
        match name.and_then(|behind| self.extra.as_ref()?.names.get(behind)) {
            Some(name) => format!("layer {layer} ({name})"),
            None => format!("layer {layer}"),
        }
    }

    /// As [`layer`](Self::layer), to change it.
    #[must_use]
    pub fn layer_mut(&mut self, layer: usize) -> Option<&mut LayerSpec> {
        match layer.checked_sub(self.layers.len()) {
            None => self.layers.get_mut(layer),
            Some(behind) => self.extra.as_mut()?.layers.get_mut(behind),
        }
    }

    /// The MoE block of a layer, of the decoder's or behind them, if it has one.
    #[must_use]
    pub fn moe_of(&self, layer: usize) -> Option<&MoeSpec> {
        self.layer(layer)?.moe()
    }

    /// The numbers of the layers behind the decoder's that have parts.
    #[must_use]
    pub fn extra_layers(&self) -> Range<usize> {
        let decoder = self.layers.len();
        decoder..decoder + self.extra.as_ref().map_or(0, |extra| extra.layers.len())
    }

    /// The layers behind the decoder's that have experts: number and MoE block.
    pub fn extra_moe(&self) -> impl Iterator<Item = (usize, &MoeSpec)> {
        self.extra_layers().filter_map(|layer| Some((layer, self.moe_of(layer)?)))
    }

    /// Every part of the layers behind the decoder's, layer by layer.
    #[must_use]
    pub fn extra_parts(&self) -> Vec<Part> {
        self.extra_layers().flat_map(|layer| self.layer_parts(layer)).collect()
    }
}
