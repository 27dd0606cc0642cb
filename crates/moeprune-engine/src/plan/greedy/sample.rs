//! Which of the calibration tokens are looked at.

use candle_core::Tensor;
use moeprune_capture::TokenBlocks;

use crate::Error;

/// Some of the tokens of all blocks, spread evenly over them.
#[derive(Debug)]
pub(super) struct Sample {
    /// Counted through all blocks, ascending.
    places: Vec<u64>,
}

impl Sample {
    /// `most` tokens, or all if there are not so many.
    pub(super) fn of(blocks: &TokenBlocks, most: usize) -> Self {
        let all = blocks.tokens();
        let count = all.min(most as u64);
        // The middle of each of so many equal stretches.
        let place =
            |i| ((2 * u128::from(i) + 1) * u128::from(all) / (2 * u128::from(count))) as u64;
        Self { places: (0..count).map(place).collect() }
    }

    /// How many they are.
    pub(super) fn tokens(&self) -> u64 {
        self.places.len() as u64
    }

    /// The rows of each micro-batch, `[blocks, tokens, hidden]`, that are looked at.
    pub(super) fn rows(&self, batches: &[Tensor]) -> Result<Vec<Vec<u32>>, Error> {
        let (mut first, mut left) = (0, &self.places[..]);
        let mut rows = Vec::with_capacity(batches.len());
        for batch in batches {
            let (blocks, len, _) = batch.dims3()?;
            let end = first + (blocks * len) as u64;
            let (here, after) = left.split_at(left.partition_point(|&place| place < end));
            rows.push(here.iter().map(|place| (place - first) as u32).collect());
            (first, left) = (end, after);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn tokens_are_spread_evenly() {
        let check = |blocks: usize, most: usize, expected: &[Vec<u32>]| {
            let blocks = TokenBlocks::new(vec![vec![0; 4]; blocks], 1).unwrap();
            let sample = Sample::of(&blocks, most);
            let whole = |of: &[Vec<u32>]| {
                Tensor::zeros((of.len(), 4, 1), DType::F32, &Device::Cpu).unwrap()
            };
            let batches: Vec<Tensor> = blocks.batches(2).map(whole).collect();
            assert_eq!(sample.rows(&batches).unwrap(), expected);
        };
        check(2, 100, &[vec![0, 1, 2, 3, 4, 5, 6, 7]]);
        check(2, 2, &[vec![2, 6]]);
        check(2, 1, &[vec![4]]);
        check(3, 3, &[vec![2, 6], vec![2]]);
        check(3, 1, &[vec![6], vec![]]);
    }
}
