//! The control that a criterion has to beat.

use moeprune_core::{ExpertSaliency, LayerBehaviour, StageError};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{RngCore, SeedableRng},
};

/// A number drawn for each expert, uniform between 0 and 1, from the seed, the layer and the
/// expert's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct Random {
    /// Another seed drops other experts.
    pub seed: u64,
}

impl ExpertSaliency for Random {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        // Layers are ranked in any order, so each has its own generator.
        let place = (layer.layer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut generator = Xoshiro256PlusPlus::seed_from_u64(self.seed ^ place);
        let uniform = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
        Ok((0..layer.experts()).map(|_| uniform(generator.next_u64())).collect())
    }

    fn needs_observation(&self) -> bool {
        false
    }
}
