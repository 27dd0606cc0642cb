//! Which part writes what of a model that is written in parts.

use moeprune_core::{Error as CoreError, PartOf};

/// The shares of a model that several processes write apart: ranges of its decoder layers, in order. What belongs to
/// no layer, and layers behind the decoder's, are of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    first: PartOf,
    /// By decoder layer.
    owners: Vec<PartOf>,
}

impl Division {
    /// `parts` shares of a model with so many decoder layers. If there are more shares than layers, some have none.
    ///
    /// # Errors
    /// If `parts` is 0 or more than [`PartOf::MOST`].
    pub fn new(layers: usize, parts: usize) -> Result<Self, CoreError> {
        let first = PartOf::new(1, parts)?;
        let owners = PartOf::all(parts)?.flat_map(|part| part.range(layers).map(move |_| part));
        Ok(Self { first, owners: owners.collect() })
    }

    /// Number of shares.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.first.of()
    }

    /// The share that a layer is of, or, of `None`, what belongs to no layer.
    #[must_use]
    pub fn owner(&self, layer: Option<usize>) -> PartOf {
        layer.and_then(|layer| self.owners.get(layer)).copied().unwrap_or(self.first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_layer_has_the_owner_whose_range_it_is_in(layers in 0..200_usize, parts in 1..300_usize) {
            let division = Division::new(layers, parts).unwrap();
            prop_assert_eq!(division.parts(), parts);
            for layer in 0..layers {
                prop_assert!(division.owner(Some(layer)).range(layers).contains(&layer));
            }
            for outside in [None, Some(layers), Some(usize::MAX)] {
                prop_assert_eq!(division.owner(outside), PartOf::new(1, parts).unwrap());
            }
        }
    }

    #[test]
    fn no_share_at_all() {
        assert!(Division::new(4, 0).is_err());
    }
}
