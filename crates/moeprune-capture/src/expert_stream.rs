//! The experts of a layer, one after the other, ready to run.

use moeprune_model::{Expert, for_each_expert, for_each_uploaded_expert, packs_from_rows};

use crate::{Error, StoredLayer, observer::forward_error};

/// Reads the experts `experts` of a layer and hands each, loaded, to `visit`. The next one is read, and packed or brought
/// to a device, while one is in use. On the CPU those in codes are packed when the one before is done: numbers take more
/// memory than codes.
///
/// # Errors
/// If an expert cannot be read, or what `visit` returns.
pub fn for_each_loaded_expert<E: From<Error> + From<moeprune_model::Error>>(
    stored: StoredLayer<'_>,
    experts: &[usize],
    mut visit: impl FnMut(Expert) -> Result<(), E>,
) -> Result<(), E> {
    let StoredLayer { source, spec, layer, compute } = stored;
    if compute.holds_stored() || packs_from_rows(source, spec, compute, layer) {
        return for_each_uploaded_expert(source, spec, compute, layer, experts, visit);
    }
    for_each_expert(source, spec, layer, experts, |stored| {
        let expert = Expert::load(&stored, spec, layer, stored.expert, compute)
            .map_err(|error| forward_error(layer, error))?;
        visit(expert)
    })
}
