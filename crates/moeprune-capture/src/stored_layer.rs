//! A layer that is read while it runs.

use moeprune_core::{ModelSpec, TensorSource};
use moeprune_model::Compute;

/// A layer of a model as it is stored, and where it is to run.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a source of tensors is no text")]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct StoredLayer<'a> {
    /// Where its weights are read.
    pub source: &'a dyn TensorSource,
    /// The model that it is a layer of.
    pub spec: &'a ModelSpec,
    /// Its number.
    pub layer: usize,
    /// Where it runs.
    pub compute: &'a Compute,
}
