//! Where the experts of a whole model come from when it runs.

use std::fmt;

use moeprune_core::{LayerSpec, ModelSpec, TensorSource};

use crate::{Compute, Error, Expert};

/// Brings the experts of a [`LanguageModel`](crate::LanguageModel) to where they run: from memory
/// ([`HeldExperts`]), or from where they are stored ([`StreamedExperts`](crate::StreamedExperts)).
///
/// An implementation may hold what it likes; results depend on what the experts are, never on where they
/// were. It is called once per layer and forward pass, so that an expert that several sequences of a batch
/// go through is brought once for all of them.
///
/// ```
/// use moeprune_model::{Error, Expert, ExpertProvider, HeldExperts};
///
/// /// Counts how often experts are brought.
/// #[derive(Debug)]
/// struct Counted {
///     held: HeldExperts,
///     brought: std::sync::atomic::AtomicUsize,
/// }
///
/// impl ExpertProvider for Counted {
///     fn for_each(
///         &self,
///         layer: usize,
///         experts: &[usize],
///         visit: &mut dyn FnMut(&Expert) -> Result<(), Error>,
///     ) -> Result<(), Error> {
///         self.brought.fetch_add(experts.len(), std::sync::atomic::Ordering::Relaxed);
///         self.held.for_each(layer, experts, visit)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` brings no experts",
    note = "implement `ExpertProvider::for_each`: hand over experts of a layer, one after the other"
)]
pub trait ExpertProvider: fmt::Debug + Send + Sync {
    /// Hands experts of a layer to `visit`, each once and in the order of `experts`, which is ascending.
    ///
    /// # Errors
    /// The first error of `visit`, after which no expert is visited; if an expert cannot be read, or the
    /// layer has no such expert.
    fn for_each(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(&Expert) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// Whether a call costs nothing, so that a forward pass may be divided between threads, each of which
    /// calls for the experts of its own sequences. By default not.
    fn are_at_hand(&self) -> bool {
        false
    }
}

impl<E: ExpertProvider + ?Sized> ExpertProvider for Box<E> {
    fn for_each(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(&Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        (**self).for_each(layer, experts, visit)
    }

    fn are_at_hand(&self) -> bool {
        (**self).are_at_hand()
    }
}

/// All experts of a model, in memory.
#[derive(Debug)]
pub struct HeldExperts {
    /// By layer.
    layers: Vec<Vec<Expert>>,
}

impl HeldExperts {
    /// Reads all experts of a model to where they will run.
    ///
    /// # Errors
    /// As [`Expert::load`].
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let of_layer = |(layer, parts): (usize, &LayerSpec)| {
            let experts = parts.moe().map_or(0, |moe| moe.experts);
            (0..experts).map(|e| Expert::load(source, spec, layer, e, compute)).collect()
        };
        let layers = spec.layers.iter().enumerate().map(of_layer).collect::<Result<_, Error>>()?;
        Ok(Self { layers })
    }
}

impl ExpertProvider for HeldExperts {
    fn for_each(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(&Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for &expert in experts {
            let held = self.layers.get(layer).and_then(|experts| experts.get(expert));
            visit(held.ok_or_else(|| no_expert(layer, expert))?)?;
        }
        Ok(())
    }

    fn are_at_hand(&self) -> bool {
        true
    }
}

pub(crate) fn no_expert(layer: usize, expert: usize) -> Error {
    Error::Spec(format!("layer {layer} has no expert {expert}"))
}
