//! CPython's random numbers, without which the harness's shots cannot be drawn.

use std::collections::HashSet;

/// CPython's `random.Random` seeded with an integer: the Mersenne Twister MT19937 of Matsumoto and
/// Nishimura (1998) with the array initialisation of 2002, and the ways `getrandbits` and `sample`
/// use it.
///
/// ```
/// # use moeprune_eval::PythonRandom;
/// // >>> random.Random(1234).sample(range(7473), 5)
/// let mut random = PythonRandom::new(1234);
/// assert_eq!(random.sample(7473, 5), Some(vec![6374, 3610, 957, 61, 742]));
/// ```
#[derive(Clone, Debug)]
pub struct PythonRandom {
    state: [u32; N],
    used: usize,
}

const N: usize = 624;
const M: usize = 397;

impl PythonRandom {
    /// The generator `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let state = if high == 0 { state_from_key(&[low]) } else { state_from_key(&[low, high]) };
        Self { state, used: N }
    }

    /// `sample(range(population), count)`: that many different indices, in the order drawn;
    /// nothing if the population is smaller.
    pub fn sample(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            None
        } else if population <= largest_pool(count) {
            Some(self.sample_from_pool(population, count))
        } else {
            Some(self.sample_by_rejection(population, count))
        }
    }

    /// Removes each index drawn from a list of all.
    fn sample_from_pool(&mut self, population: usize, count: usize) -> Vec<usize> {
        let mut pool: Vec<usize> = (0..population).collect();
        (0..count)
            .map(|_| {
                let drawn = self.below(pool.len());
                pool.swap_remove(drawn)
            })
            .collect()
    }

    /// Draws again each index that was drawn before.
    fn sample_by_rejection(&mut self, population: usize, count: usize) -> Vec<usize> {
        let mut seen = HashSet::with_capacity(count);
        let mut sample = Vec::with_capacity(count);
        while sample.len() < count {
            let drawn = self.below(population);
            if seen.insert(drawn) {
                sample.push(drawn);
            }
        }
        sample
    }

    /// A number below `bound`, which is at least 1: as many bits as the bound has, again and again
    /// until they are below it.
    fn below(&mut self, bound: usize) -> usize {
        let bits = usize::BITS - bound.leading_zeros();
        loop {
            let drawn = self.bits(bits);
            if drawn < bound as u64 {
                return drawn as usize;
            }
        }
    }

    /// `getrandbits(count)` for 1 to 64 bits: words from the lowest up, the last one's high bits.
    fn bits(&mut self, count: u32) -> u64 {
        if count <= u32::BITS {
            return u64::from(self.word() >> (u32::BITS - count));
        }
        let low = u64::from(self.word());
        let high = u64::from(self.word() >> (u64::BITS - count));
        high << u32::BITS | low
    }

    /// The next 32 bits, tempered.
    fn word(&mut self) -> u32 {
        if self.used == N {
            self.advance();
        }
        let mut word = self.state[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// One turn of the twisted recurrence over the whole state.
    fn advance(&mut self) {
        for i in 0..N {
            let joined = self.state[i] & 0x8000_0000 | self.state[(i + 1) % N] & 0x7fff_ffff;
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ joined >> 1 ^ twist;
        }
        self.used = 0;
    }
}

/// The largest population CPython samples from a list: about where a set of `count` entries
/// would take more memory. The power is exact in integers: 3 · count is no power of 4.
fn largest_pool(count: usize) -> usize {
    let mut size: usize = 21;
    if count > 5 {
        let wanted = count.saturating_mul(3);
        let mut power: usize = 4;
        while power < wanted {
            power = power.saturating_mul(4);
        }
        size = size.saturating_add(power);
    }
    size
}

fn state_from_key(key: &[u32]) -> [u32; N] {
    let mut state = state_from_word(19_650_218);
    let mut i = 1;
    for round in 0..N.max(key.len()) {
        let j = round % key.len();
        state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_664_525))
            .wrapping_add(key[j])
            .wrapping_add(j as u32);
        i = next_index(&mut state, i);
    }
    for _ in 1..N {
        state[i] =
            (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
        i = next_index(&mut state, i);
    }
    state[0] = 0x8000_0000; // so that no key gives a state of zeros
    state
}

fn state_from_word(word: u32) -> [u32; N] {
    let mut state = [word; N];
    for i in 1..N {
        state[i] = mixed(state[i - 1]).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
    }
    state
}

fn mixed(word: u32) -> u32 {
    word ^ word >> 30
}

/// Index 0 only carries the last word into the next pass over 1 to 623.
fn next_index(state: &mut [u32; N], i: usize) -> usize {
    if i + 1 < N {
        return i + 1;
    }
    state[0] = state[N - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every expected value below was printed by CPython 3.11.

    #[test]
    fn seeds_as_cpython() {
        let check = |seed, expected: [u32; 4]| {
            let mut random = PythonRandom::new(seed);
            assert_eq!([(); 4].map(|()| random.word()), expected, "seed {seed}");
        };
        check(0, [3_626_764_237, 1_654_615_998, 3_255_389_356, 3_823_568_514]);
        check(1, [577_090_037, 2_444_712_010, 3_639_700_191, 3_445_702_192]);
        check(1234, [4_150_886_329, 3_342_196_574, 1_892_932_127, 501_869_158]);
        check(1 << 32, [485_306_839, 1_508_871_100, 1_794_561_286, 4_014_597_330]);
        check((1 << 32) + 5, [675_479_763, 2_085_189_291, 1_213_270_837, 3_822_202_474]);
        check(u64::MAX, [93_740_670, 1_068_495_656, 1_452_108_352, 2_657_516_307]);
    }

    #[test]
    fn continues_past_the_first_state() {
        let mut random = PythonRandom::new(1234);
        assert_eq!((0..=10_000).map(|_| random.word()).last(), Some(2_299_709_130));
    }

    #[test]
    fn draws_bits_as_cpython() {
        let mut random = PythonRandom::new(1234);
        let mut check = |count, expected: u64| assert_eq!(random.bits(count), expected, "{count}");
        check(1, 1);
        check(5, 24);
        check(13, 3610);
        check(32, 501_869_158);
        check(33, 32_175_636);
        check(64, 17_386_697_504_169_769_072);
        check(40, 888_797_392_593);
    }

    #[test]
    fn draws_below_a_bound_as_cpython() {
        let mut random = PythonRandom::new(1234);
        let mut check = |bound, expected| assert_eq!(random.below(bound), expected, "{bound}");
        check(1, 0);
        check(2, 0);
        check(3, 0);
        check(7, 0);
        check(7473, 7462);
        check(1 << 32, 2_976_787_804);
        check((1 << 32) + 1, 1_523_148_328);
        check(1_000_000_000_000_000, 34_690_525_702_690);
    }

    /// Also compares the word that comes next, which shows how many words were consumed.
    fn check(population: usize, expected: &[usize], next: u32) {
        let mut random = PythonRandom::new(1234);
        let sample = random.sample(population, expected.len()).unwrap();
        assert_eq!((&*sample, random.word()), (expected, next), "sample of {population}");
    }

    #[test]
    fn samples_as_cpython() {
        check(0, &[], 4_150_886_329);
        check(8, &[], 4_150_886_329);
        check(1, &[0], 501_869_158);
        check(5, &[3, 0, 4, 2, 1], 2_884_343_186);
        check(10, &[7, 1, 0], 389_311_301);
        check(20, &[14, 3, 0, 2, 1], 2_884_343_186);
        check(85, &[56, 14, 0, 11, 74, 4], 2_884_343_186);
        check(86, &[56, 14, 0, 11, 74, 4], 2_884_343_186);
    }

    #[test]
    fn changes_method_where_cpython_does() {
        check(21, &[14, 3, 0, 2, 1], 2_884_343_186); // the last pool of 5
        check(22, &[14, 3, 0, 2, 18], 150_006_740);
        check(
            277, // the last pool of 22
            &[
                225, 59, 3, 46, 17, 42, 50, 181, 121, 8, 15, 267, 177, 247, 237, 76, 273, 93, 58,
                7, 249, 127,
            ],
            277_292_886,
        );
        check(
            278,
            &[
                225, 59, 3, 46, 17, 42, 50, 181, 121, 8, 15, 177, 247, 237, 76, 93, 58, 7, 257,
                249, 127, 33,
            ],
            2_865_840_744,
        );
    }

    #[test]
    fn refuses_more_than_there_are() {
        assert_eq!(PythonRandom::new(0).sample(4, 5), None);
        assert_eq!(PythonRandom::new(0).sample(usize::MAX - 1, usize::MAX), None);
    }
}
