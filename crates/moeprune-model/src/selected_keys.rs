//! Which keys queries see, where they do not see all at or before them.

use std::ops::Range;

/// The keys that the last queries of a sequence see.
#[derive(Debug)]
pub(crate) struct SelectedKeys {
    /// Keys that there are.
    keys: usize,
    /// The key at which the first of these queries stands; those before it see all keys.
    first: usize,
    /// A bit for each key, in `words` words for each query.
    bits: Vec<u64>,
    words: usize,
}

impl SelectedKeys {
    /// For the queries from key `first` on, none of which sees any key so far.
    pub(crate) fn none(first: usize, keys: usize) -> Self {
        let words = keys.div_ceil(64);
        Self { keys, first, bits: vec![0; words * keys.saturating_sub(first)], words }
    }

    /// How many keys there were when they were selected.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// The query that stands at key `query` sees key `key`.
    pub(crate) fn insert(&mut self, query: usize, key: usize) {
        let row = (query - self.first) * self.words;
        self.bits[row + key / 64] |= 1 << (key % 64);
    }

    /// Sets the elements of `row` to `value` that belong to keys which the query at key `query` does
    /// not see; there is one element for each of `keys`.
    pub(crate) fn hide(&self, query: usize, keys: Range<usize>, row: &mut [f32], value: f32) {
        let Some(at) = query.checked_sub(self.first) else { return };
        let seen = &self.bits[at * self.words..][..self.words];
        for (key, element) in keys.zip(row) {
            if seen[key / 64] >> (key % 64) & 1 == 0 {
                *element = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden() {
        let mut selected = SelectedKeys::none(70, 72);
        for (query, key) in [(70, 0), (70, 69), (71, 63), (71, 64), (71, 71)] {
            selected.insert(query, key);
        }
        let check = |query: usize, keys: Range<usize>, expected: &[f32]| {
            let mut row = vec![1.0; keys.len()];
            selected.hide(query, keys, &mut row, 0.0);
            assert_eq!(row, expected, "{query}");
        };
        check(69, 66..70, &[1.0; 4]);
        check(70, 67..71, &[0.0, 0.0, 1.0, 0.0]);
        check(70, 0..2, &[1.0, 0.0]);
        check(71, 62..66, &[0.0, 1.0, 1.0, 0.0]);
        check(71, 71..72, &[1.0]);
    }
}
