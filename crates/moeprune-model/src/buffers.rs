//! Memory of weights that went, for those that come.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// Buffers kept at most: the matrices of two experts.
const KEPT: usize = 4;

/// Memory of weights that went, for those that come: an expert after another of the same shape finds pages that are
/// there already.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u32>>>);

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffers")
    }
}

impl Buffers {
    /// A buffer of at least so many words if there is one, or an empty one.
    pub(crate) fn take(&self, words: usize) -> Vec<u32> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u32>| buffer.capacity() >= words;
        let best =
            (0..kept.len()).filter(|&at| fits(&kept[at])).min_by_key(|&at| kept[at].capacity());
        best.map(|at| kept.swap_remove(at)).unwrap_or_default()
    }

    /// Takes a buffer back. Of more than are kept the smallest goes.
    pub(crate) fn give(&self, buffer: Vec<u32>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(buffer);
        if kept.len() > KEPT
            && let Some(at) = (0..kept.len()).min_by_key(|&at| kept[at].capacity())
        {
            kept.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_fits() {
        let buffers = Buffers::default();
        for capacity in [30, 10, 20, 5, 40] {
            buffers.give(Vec::with_capacity(capacity));
        }
        let taken = [15, 15, 41, 8, 8, 1].map(|words| buffers.take(words).capacity());
        assert_eq!(taken, [20, 30, 0, 10, 40, 0]);
    }
}
