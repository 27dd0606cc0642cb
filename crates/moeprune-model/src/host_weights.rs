//! Weights of a Linear on the CPU, packed for its products.

use std::{ops::Range, sync::Arc};

use moeprune_core::TensorId;
use moeprune_linalg::{PackedElements, PackedWeights, Panel, multiply_in_tiles, multiply_packed};

use crate::{Compute, Error, buffers::Buffers, unpacked::Unpacked};

/// Weights of a Linear on the CPU: bf16 if that is how they are stored, else f32.
#[derive(Debug)]
pub(crate) struct HostWeights {
    packed: PackedWeights,
    /// Whether products are by tiles: for any number of rows, whose bits do not depend on it.
    by_tiles: bool,
    /// Where their memory goes.
    home: Option<Arc<Buffers>>,
}

impl HostWeights {
    /// Packs weights of as many inputs, whose outputs stand one after the other.
    pub(crate) fn pack(
        weights: &[(TensorId, Unpacked<'_>)],
        inputs: usize,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let outputs = weights.iter().map(|(_, weight)| weight.outputs()).sum();
        let elements = match weights.iter().all(|(_, weight)| weight.is_bf16()) {
            true => PackedElements::Bf16,
            false => PackedElements::F32,
        };
        let words = PackedWeights::buffer_words(elements, outputs, inputs);
        let home = compute.kept_buffers();
        let buffer = home.map(|home| home.take(words)).unwrap_or_default();
        let packed = PackedWeights::new(elements, outputs, inputs, buffer);
        let by_tiles = compute.uses_tiles() && elements == PackedElements::Bf16;
        let mut packed = Self { packed, by_tiles, home: home.cloned() };
        packed.packed.fill(|outputs, panel| fill(weights, outputs, panel))?;
        Ok(packed)
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> u64 {
        let (elements, inputs) = (self.packed.elements(), self.packed.inputs());
        let words = PackedWeights::buffer_words(elements, self.packed.outputs(), inputs);
        (words * size_of::<u32>()) as u64
    }

    pub(crate) fn outputs(&self) -> usize {
        self.packed.outputs()
    }

    /// `x · wᵀ` for `rows` rows.
    pub(crate) fn product(&self, rows: usize, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; rows * self.outputs()];
        if self.by_tiles {
            multiply_in_tiles(rows, x, &self.packed, &mut y);
        } else {
            multiply_packed(rows, x, &self.packed, &mut y);
        }
        y
    }
}

impl Drop for HostWeights {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            let nothing = PackedWeights::new(PackedElements::F32, 0, 0, Vec::new());
            home.give(std::mem::replace(&mut self.packed, nothing).into_buffer());
        }
    }
}

/// Fills the panel of these outputs, which may be of several weights.
fn fill(
    weights: &[(TensorId, Unpacked<'_>)],
    outputs: Range<usize>,
    panel: &mut Panel<'_>,
) -> Result<(), Error> {
    let mut begin = 0;
    for (tensor, weight) in weights {
        let end = begin + weight.outputs();
        let (first, last) = (outputs.start.max(begin), outputs.end.min(end));
        if first < last {
            let rows = first - begin..last - begin;
            weight
                .put(rows, panel, first - outputs.start)
                .map_err(|source| Error::Read { tensor: *tensor, source })?;
        }
        begin = end;
    }
    Ok(())
}
