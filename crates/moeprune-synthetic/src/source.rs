//! What the weights depend on, and how much of them is written.

use moeprune_core::NormWeights;

use crate::shards::OutputShard;

/// What the weights depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) seed: u64,
    /// In each layer.
    pub(crate) experts: usize,
    /// How the weights of norms are stored.
    pub(crate) norms: NormWeights,
    /// Only routers and norms are written.
    pub(crate) sparse: bool,
}

impl Source {
    /// Bytes that take room on a disk.
    pub(crate) fn disk_bytes(self, shards: &[OutputShard]) -> u64 {
        let headers: u64 = shards.iter().map(|s| s.header.len() as u64).sum();
        headers + self.data_bytes(shards)
    }

    pub(crate) fn data_bytes(self, shards: &[OutputShard]) -> u64 {
        let tensors = shards.iter().flat_map(|s| &s.tensors).map(|placed| &placed.tensor);
        tensors
            .filter(|t| !self.sparse || t.is_vector() || t.is_router())
            .map(|t| t.named.bytes())
            .sum()
    }
}
