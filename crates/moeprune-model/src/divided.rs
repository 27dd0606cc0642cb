//! Sequences of a batch, divided between threads.

use std::ops::Range;

use moeprune_core::{ModelSpec, Part};
use rayon::prelude::*;

use crate::{Compute, Error, ExpertProvider, LayerCache, cache::SequenceCache};

/// Weights in a matrix at most for which each thread may read all of them: 4 MiB in f32, which a core's cache
/// holds. Larger products are divided themselves.
const SMALL_MATRIX: u64 = 1 << 20;

/// Multiply-adds of a thread at least: less takes longer to hand over than to do.
const WORTH: u64 = 1 << 21;

/// Whether threads each take some of the sequences, and how many it is worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Divided {
    /// Weights that a token is multiplied by; 0 if nothing is divided.
    per_token: u64,
}

impl Divided {
    pub(crate) fn of(spec: &ModelSpec, compute: &Compute, experts: &impl ExpertProvider) -> Self {
        let (mut per_token, mut largest) = (0.0, 0);
        for layer in 0..spec.layers.len() {
            let routed =
                spec.moe_of(layer).map_or(1.0, |moe| moe.top_k as f64 / moe.experts as f64);
            for shape in spec.layer_parts(layer).iter().filter_map(Part::linear_shape) {
                let share = if shape.id.expert().is_some() { routed } else { 1.0 };
                per_token += share * shape.parameters() as f64;
                largest = largest.max(shape.parameters());
            }
        }
        let divides = !compute.holds_stored() && experts.are_at_hand() && largest <= SMALL_MATRIX;
        Self { per_token: if divides { per_token as u64 } else { 0 } }
    }

    /// Calls `run` for parts of the sequences, with the number of the first one of each and their caches, layer by
    /// layer. Returns what it returned, in the order of the sequences.
    pub(crate) fn run<S: AsRef<[u32]> + Sync, R: Send>(
        self,
        sequences: &[S],
        caches: &mut [LayerCache],
        run: impl Fn(usize, &[S], &mut [&mut [SequenceCache]]) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        let lens: Vec<usize> = sequences.iter().map(|sequence| sequence.as_ref().len()).collect();
        let parts = self.parts(&lens);
        let mut rest: Vec<&mut [SequenceCache]> =
            caches.iter_mut().map(|cache| cache.sequences.as_mut_slice()).collect();
        if let [_] = parts.as_slice() {
            return Ok(vec![run(0, sequences, &mut rest)?]);
        }
        let mut own = Vec::with_capacity(parts.len());
        for part in &parts {
            let (first, after) =
                rest.into_iter().map(|caches| caches.split_at_mut(part.len())).unzip();
            let first: Vec<&mut [SequenceCache]> = first;
            own.push(first);
            rest = after;
        }
        let of_part = |(part, caches): (&Range<usize>, &mut Vec<&mut [SequenceCache]>)| {
            run(part.start, &sequences[part.clone()], caches)
        };
        parts.par_iter().zip(&mut own).with_max_len(1).map(of_part).collect()
    }

    /// Ranges of sequences of about equally many tokens; one if nothing is divided.
    fn parts(self, lens: &[usize]) -> Vec<Range<usize>> {
        let tokens: usize = lens.iter().sum();
        let worth = (tokens as u64).saturating_mul(self.per_token) / WORTH;
        let threads = rayon::current_num_threads().min(lens.len());
        let count = threads.min(usize::try_from(worth).unwrap_or(usize::MAX)).max(1);
        let (mut parts, mut first, mut seen) = (Vec::with_capacity(count), 0, 0);
        for (sequence, len) in lens.iter().enumerate() {
            seen += len;
            // The part that this token count ends.
            if seen * count >= tokens * (parts.len() + 1) && parts.len() + 1 < count {
                parts.push(first..sequence + 1);
                first = sequence + 1;
            }
        }
        if first < lens.len() || parts.is_empty() {
            parts.push(first..lens.len());
        }
        parts
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one part is a division too")]
mod tests {
    use super::*;

    /// Parts in a pool of so many threads.
    fn check(threads: usize, per_token: u64, lens: &[usize], expected: &[Range<usize>]) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let parts = pool.install(|| Divided { per_token }.parts(lens));
        assert_eq!(parts, expected, "{threads} {per_token} {lens:?}");
    }

    #[test]
    fn about_equally_many_tokens() {
        check(2, WORTH, &[1, 1, 1, 1], &[0..2, 2..4]);
        check(2, WORTH, &[1, 1, 1], &[0..2, 2..3]);
        check(3, WORTH, &[1; 7], &[0..3, 3..5, 5..7]);
        check(2, WORTH, &[100, 1, 1], &[0..1, 1..3]);
        check(2, WORTH, &[1, 1, 100], &[0..3]);
        check(4, WORTH, &[5, 5], &[0..1, 1..2]);
        check(1, WORTH, &[1, 1, 1, 1], &[0..4]);
    }

    #[test]
    fn what_is_not_worth_it_is_not_divided() {
        check(4, 0, &[1; 8], &[0..8]);
        check(4, WORTH / 8, &[1; 8], &[0..8]);
        check(4, WORTH / 4, &[1; 8], &[0..4, 4..8]);
        check(4, u64::MAX, &[1; 8], &[0..2, 2..4, 4..6, 6..8]);
        check(4, u64::MAX, &[], &[0..0]);
    }
}
