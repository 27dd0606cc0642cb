//! Ways in which bytes can go into a file.

/// How bytes go into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Straight from this process's memory, past the system's cache.
    Direct,
    /// Through the system's cache.
    Cached,
    /// Within the system, from file to file.
    System,
}

/// How bytes go into a file, and how many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) means: Means,
    /// Blocks that are on their way at the same time, each with a thread of its own.
    pub(super) lanes: usize,
    /// Bytes of a block.
    pub(super) block: u64,
}

/// Fewer bytes are no work for several threads.
const SMALLEST: u64 = 1 << 20;

impl Way {
    pub(super) const fn new(means: Means, lanes: usize, block: u64) -> Self {
        Self { means, lanes, block }
    }

    /// The same for `bytes` bytes: smaller blocks if there are too few for all lanes, and for a few bytes the
    /// cache, which puts them together with their neighbours.
    pub(super) fn scaled_to(self, bytes: u64) -> Self {
        if bytes < SMALLEST && self.means == Means::Direct {
            return Self::new(Means::Cached, 1, SMALLEST);
        }
        let share = bytes.div_ceil(self.lanes as u64).next_multiple_of(SMALLEST);
        let block = self.block.min(share);
        let lanes = self.lanes.min(bytes.div_ceil(block).max(1) as usize);
        Self { means: self.means, lanes, block }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_have_smaller_blocks_and_fewer_lanes() {
        const MB: u64 = 1 << 20;
        let check = |way: (Means, usize, u64), bytes: u64, expected: (Means, usize, u64)| {
            let (way, expected) =
                (Way::new(way.0, way.1, way.2), Way::new(expected.0, expected.1, expected.2));
            assert_eq!(way.scaled_to(bytes), expected, "{bytes}");
        };
        use Means::{Cached, Direct, System};
        let direct = (Direct, 4, 4 * MB);
        check(direct, 1000 * MB, direct);
        check(direct, 16 * MB, direct);
        check(direct, 8 * MB, (Direct, 4, 2 * MB));
        check(direct, 3 * MB, (Direct, 3, MB));
        check(direct, MB, (Direct, 1, MB));
        check(direct, MB - 1, (Cached, 1, MB));
        check((Cached, 2, MB / 2), 10 * MB, (Cached, 2, MB / 2));
        check((System, 2, 8 * MB), 100, (System, 1, MB));
    }
}
