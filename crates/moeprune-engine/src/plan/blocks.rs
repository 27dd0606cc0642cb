//! Groups of experts that are chosen from by themselves.
//!
//! A router that selects groups first needs the same number of experts in each of them, so experts
//! are clustered and ranked within a group. To a way of choosing, each group is a layer.

use moeprune_core::{DistanceMatrix, ExpertBudget, Partition};

use crate::Error;

/// How the experts of every layer fall into blocks of neighbours: one block, unless the router
/// selects groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    per_layer: usize,
}

impl Blocks {
    /// So many equally large blocks in every layer.
    pub(super) fn new(per_layer: usize) -> Self {
        Self { per_layer: per_layer.max(1) }
    }

    /// Blocks in a layer.
    pub(super) fn per_layer(self) -> usize {
        self.per_layer
    }

    /// What each block keeps.
    pub(super) fn budget(self, of_layers: ExpertBudget) -> ExpertBudget {
        match of_layers {
            ExpertBudget::Uniform { keep } => ExpertBudget::Uniform { keep: keep / self.per_layer },
            other => other,
        }
    }

    /// The distances within each block, layer after layer.
    pub(super) fn distances(
        self,
        layers: Vec<DistanceMatrix>,
    ) -> Result<Vec<DistanceMatrix>, Error> {
        if self.per_layer == 1 {
            return Ok(layers);
        }
        let mut blocks = Vec::with_capacity(layers.len() * self.per_layer);
        for layer in layers {
            let size = layer.len() / self.per_layer;
            for start in (0..self.per_layer).map(|block| block * size) {
                blocks.push(DistanceMatrix::from_fn(size, |i, j| layer.at(start + i, start + j))?);
            }
        }
        Ok(blocks)
    }

    /// The clusters of layers from those of blocks.
    pub(super) fn partitions(self, blocks: Vec<Partition>) -> Result<Vec<Partition>, Error> {
        if self.per_layer == 1 {
            return Ok(blocks);
        }
        let layer = |blocks: &[Partition]| {
            let mut clusters = Vec::new();
            let mut start = 0;
            for block in blocks {
                let moved = |cluster: &Vec<usize>| cluster.iter().map(|e| start + e).collect();
                clusters.extend(block.clusters().iter().map(moved));
                start += block.experts();
            }
            Partition::new(start, clusters)
        };
        Ok(blocks.chunks(self.per_layer).map(layer).collect::<Result<_, _>>()?)
    }

    /// Values per expert by block, from those by layer.
    pub(super) fn values(self, layers: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let blocks = |layer: Vec<f64>| {
            let size = (layer.len() / self.per_layer).max(1);
            layer.chunks(size).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        layers.into_iter().flat_map(blocks).collect()
    }

    /// Experts by block, from those by layer; `experts` are there in each layer.
    pub(super) fn experts(self, layers: &[Vec<usize>], experts: &[usize]) -> Vec<Vec<usize>> {
        let mut blocks = Vec::with_capacity(layers.len() * self.per_layer);
        for (chosen, experts) in layers.iter().zip(experts) {
            let size = experts / self.per_layer;
            for start in (0..self.per_layer).map(|block| block * size) {
                let within = |e: &usize| (start..start + size).contains(e).then(|| e - start);
                blocks.push(chosen.iter().filter_map(within).collect());
            }
        }
        blocks
    }

    /// Experts by layer, from those by block; `experts` are there in each layer.
    pub(super) fn joined(self, blocks: &[Vec<usize>], experts: &[usize]) -> Vec<Vec<usize>> {
        let layer = |(blocks, experts): (&[Vec<usize>], &usize)| {
            let size = experts / self.per_layer;
            let moved = |(block, chosen): (usize, &Vec<usize>)| {
                chosen.iter().map(|e| block * size + e).collect::<Vec<_>>()
            };
            blocks.iter().enumerate().flat_map(moved).collect()
        };
        blocks.chunks(self.per_layer).zip(experts).map(layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_join_to_what_they_were_split_from() {
        let blocks = Blocks::new(2);
        let layers = [vec![0, 2, 5], vec![1, 3]];
        let experts = [6, 4];
        let split = blocks.experts(&layers, &experts);
        assert_eq!(split, [vec![0, 2], vec![2], vec![1], vec![1]]);
        assert_eq!(blocks.joined(&split, &experts), layers);
        assert_eq!(blocks.values(vec![vec![1.0, 2.0, 3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]);
    }

    #[test]
    fn clusters_never_reach_over_a_block() {
        let blocks = Blocks::new(2);
        let layer = DistanceMatrix::from_fn(4, |i, j| (10 * i + j) as f64).unwrap();
        let split = blocks.distances(vec![layer]).unwrap();
        assert_eq!((split[0].at(0, 1), split[1].at(0, 1)), (1.0, 23.0));
        let joined = blocks
            .partitions(vec![Partition::singletons(2), Partition::from_labels(&[0, 0])])
            .unwrap();
        assert_eq!(joined[0].clusters(), [vec![0], vec![1], vec![2, 3]]);
    }
}
