//! Token counts that fit the layer.

use moeprune_core::ClusteredLayer;

use crate::Error;

/// The counts, if there are any.
pub(crate) fn check<'a>(layer: &ClusteredLayer<'a>) -> Result<Option<&'a [u64]>, Error> {
    let experts = layer.partition.experts();
    match layer.tokens {
        Some(counts) if counts.len() != experts => {
            Err(Error::TokenCounts { counts: counts.len(), experts })
        }
        counts => Ok(counts),
    }
}
