//! The random stream that calibration blocks are drawn with.
//!
//! It is written out here, not taken from a library, because it is part of what a seed means: the
//! same seed must draw the same blocks in every later version.

/// xoshiro256++ (Blackman and Vigna), its state filled by SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random([u64; 4]);

impl Random {
    /// Stream number `stream` of `seed`. Streams of one seed are independent of each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let start = SplitMix64(seed).next() ^ SplitMix64(stream).next().rotate_left(32);
        let mut filler = SplitMix64(start);
        Self([filler.next(), filler.next(), filler.next(), filler.next()])
    }

    /// A number in `0..bound`, each equally likely: the high half of a 128-bit product, redrawn in
    /// the few cases that would favour some numbers (Lemire 2019). `bound` must not be zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }

    fn next(&mut self) -> u64 {
        let Self([a, b, c, d]) = self;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_agree_with_published_streams() {
        let mut filler = SplitMix64(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(published, std::array::from_fn(|_| filler.next()));

        let mut random = Random([1, 2, 3, 4]);
        let published = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
        ];
        assert_eq!(published, std::array::from_fn(|_| random.next()));
    }

    #[test]
    fn bounded_draws_stay_below_and_reach_everything() {
        for bound in [1, 2, 3, 7, 10] {
            let mut random = Random::new(0, bound);
            let mut seen = vec![0_u32; bound as usize];
            for _ in 0..10_000 {
                seen[random.below(bound) as usize] += 1;
            }
            let fair = 10_000.0 / bound as f64;
            assert!(seen.iter().all(|&n| (f64::from(n) - fair).abs() < 5.0 * fair.sqrt() + 1.0));
        }
        assert!(Random::new(1, 0).below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn streams_differ() {
        let first = |seed, stream| Random::new(seed, stream).next();
        let mut drawn: Vec<_> =
            (0..8).flat_map(|seed| (0..8).map(move |stream| first(seed, stream))).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 64);
    }
}
