//! Random numbers of which any part can be made alone, in any order, by any thread.

/// Words of random bits, each a function of the stream's name, the seed and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream(u64);

/// 2⁶⁴ divided by the golden ratio: multiples of it are spread evenly.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let absorb = |state, byte| mix(state ^ u64::from(byte));
        Self(name.bytes().fold(mix(seed.wrapping_add(STEP)), absorb))
    }

    /// A stream for a row.
    pub(crate) fn row(self, row: usize) -> Self {
        Self(mix(self.0 ^ mix(row as u64 + 1)))
    }

    #[inline(always)]
    pub(crate) fn word(self, place: u64) -> u64 {
        mix(self.0.wrapping_add(place.wrapping_mul(STEP)))
    }

    /// Uniform in `0..1`.
    pub(crate) fn uniform(self, place: u64) -> f64 {
        (self.word(place) >> 11) as f64 * 2_f64.powi(-53)
    }

    /// Uniform in `0..below`.
    pub(crate) fn index(self, place: u64, below: usize) -> usize {
        (self.uniform(place) * below as f64) as usize
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection in which each bit of the
/// argument flips about half of the result's.
#[inline(always)]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Samples of a standard normal distribution, one for each value of 16 random bits.
///
/// Looking them up costs a fraction of computing them, and bf16 cannot tell more of them apart.
#[derive(Debug)]
pub(crate) struct NormalTable(Box<[f32; 1 << 16]>);

impl NormalTable {
    pub(crate) fn new() -> Self {
        let stream = Stream::new(0, "normal table");
        let mut values = Vec::with_capacity(1 << 16);
        for pair in 0..1_u64 << 15 {
            // Box and Muller's transform; 1 − u is never 0.
            let radius = (-2.0 * (1.0 - stream.uniform(2 * pair)).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * stream.uniform(2 * pair + 1)).sin_cos();
            values.extend([(radius * sin) as f32, (radius * cos) as f32]);
        }
        Self(values.try_into().expect("2 · 2¹⁵ values"))
    }

    #[inline(always)]
    pub(crate) fn get(&self, bits: u16) -> f32 {
        self.0[usize::from(bits)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_normal() {
        let NormalTable(values) = NormalTable::new();
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            values.iter().map(|&z| f(f64::from(z))).sum::<f64>() / values.len() as f64
        };
        let (mean, variance, fourth) =
            (mean_of(&|z| z), mean_of(&|z| z * z), mean_of(&|z| z.powi(4)));
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!((fourth - 3.0).abs() < 0.15, "{fourth}");
    }

    #[test]
    fn streams_differ_by_seed_and_by_name() {
        let first = Stream::new(1, "a").word(0);
        for other in [Stream::new(2, "a"), Stream::new(1, "b"), Stream::new(1, "aa")] {
            assert_ne!(other.word(0), first);
        }
    }
}
