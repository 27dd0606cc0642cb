//! Which bytes of a tensor are written.

use std::ops::Range;

/// The written bytes of one tensor.
///
/// A tensor is complete when all of its bytes are written, in any pieces and order. One
/// without bytes is complete when it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    bytes: u64,
    /// Ascending, not empty, neither overlapping nor touching.
    ranges: Vec<Range<u64>>,
    complete: bool,
}

impl Written {
    /// Nothing of a tensor of so many bytes.
    pub(super) fn nothing_of(bytes: u64) -> Self {
        Self { bytes, ranges: Vec::new(), complete: false }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether a range is within the tensor.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        range.start <= range.end && range.end <= self.bytes
    }

    /// Whether some of a range is written, or all of the tensor.
    pub(super) fn meets(&self, range: &Range<u64>) -> bool {
        let at = self.ranges.partition_point(|written| written.end <= range.start);
        let next = self.ranges.get(at);
        self.complete || next.is_some_and(|next| next.start < range.end)
    }

    /// Adds a range, of which some may be written already. Returns how many bytes are new.
    pub(super) fn add(&mut self, range: &Range<u64>) -> u64 {
        let first = self.ranges.partition_point(|written| written.end < range.start);
        let after = self.ranges.partition_point(|written| written.start <= range.end);
        let before = self.count();
        if range.start < range.end {
            let met = &self.ranges[first..after];
            let start = met.first().map_or(range.start, |met| met.start.min(range.start));
            let end = met.last().map_or(range.end, |met| met.end.max(range.end));
            self.ranges.splice(first..after, std::iter::once(start..end));
        }
        let now = self.count();
        self.complete = now == self.bytes;
        now - before
    }

    fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_one_flag_for_each_byte(
            bytes in 0..40_u64,
            ranges in prop::collection::vec((0..40_u64, 0..12_u64), 0..12),
        ) {
            let mut written = Written::nothing_of(bytes);
            let mut flags = vec![false; bytes as usize];
            for (start, length) in ranges {
                let range = start..start + length;
                if !written.holds(&range) {
                    prop_assert!(range.end > bytes);
                    continue;
                }
                let of_flags = start as usize..range.end as usize;
                if length > 0 && bytes > 0 {
                    let met = flags[of_flags.clone()].contains(&true);
                    prop_assert_eq!(written.meets(&range), met || flags.iter().all(|f| *f));
                }
                let new = flags[of_flags.clone()].iter().filter(|flag| !**flag).count();
                flags[of_flags].fill(true);
                prop_assert_eq!(written.add(&range), new as u64);
                prop_assert_eq!(written.is_complete(), flags.iter().all(|flag| *flag));
                let apart = written.ranges.windows(2).all(|two| two[0].end < two[1].start);
                prop_assert!(apart, "{:?}", written);
            }
        }
    }

    #[test]
    fn without_bytes_it_must_be_put_all_the_same() {
        let mut empty = Written::nothing_of(0);
        assert!(!empty.is_complete() && !empty.meets(&(0..0)));
        assert_eq!(empty.add(&(0..0)), 0);
        assert!(empty.is_complete() && empty.meets(&(0..0)));
    }
}
