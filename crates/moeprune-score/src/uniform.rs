//! The same ratio everywhere.

use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator, StageError};

/// Every layer gets the overall ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "has no parameters")]
pub struct Uniform;

impl SparsityAllocator for Uniform {
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError> {
        Ok(vec![ratio; layers.len()])
    }
}
