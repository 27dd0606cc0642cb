//! What sequences begin with alike, as it is kept.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::LayerCache;

/// Beginnings are cut to a multiple of so many tokens. Attention on the CPU works on as many queries at a time: what
/// follows is computed in the same pieces as without, and has the same bits.
pub(crate) const PIECE: usize = 64;

/// Tokens that several sequences begin with, and what the layers keep of them.
pub(crate) struct Prefix {
    pub(crate) tokens: Vec<u32>,
    /// Of one sequence, for each layer; none if there are no tokens.
    pub(crate) caches: Vec<LayerCache>,
}

/// The beginning of the sequences of the last call that had one.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<Option<Arc<Prefix>>>);

impl Prefix {
    /// How many tokens need not be run.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether a sequence begins with it and has more.
    pub(crate) fn begins(&self, sequence: &[u32]) -> bool {
        sequence.len() > self.len() && sequence.starts_with(&self.tokens)
    }
}

/// How many tokens all of several sequences have in common at their beginning, each with one more at least; 0 of a
/// single one.
pub(crate) fn shared<S: AsRef<[u32]>>(sequences: &[S]) -> usize {
    let [first, others @ ..] = sequences else { return 0 };
    if others.is_empty() {
        return 0;
    }
    let first = first.as_ref();
    let with = |other: &S| in_common(first, other.as_ref()).min(other.as_ref().len() - 1);
    others.iter().map(with).min().unwrap_or(0).min(first.len().saturating_sub(1))
}

fn in_common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Remembered {
    pub(crate) fn get(&self) -> Option<Arc<Prefix>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, prefix: Arc<Prefix>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(prefix);
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.get().map_or(0, |prefix| prefix.len());
        f.debug_struct("Remembered").field("tokens", &tokens).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_common() {
        let check = |sequences: &[&[u32]], expected: usize| {
            assert_eq!(shared(sequences), expected, "{sequences:?}");
        };
        check(&[], 0);
        check(&[&[1, 2, 3]], 0);
        check(&[&[1, 2, 3], &[1, 2, 4]], 2);
        check(&[&[1, 2, 3], &[1, 2, 3]], 2);
        check(&[&[1, 2, 3], &[1, 2]], 1);
        check(&[&[1, 2], &[1, 2, 3], &[1, 5]], 1);
        check(&[&[1], &[1]], 0);
        check(&[&[1, 2], &[3, 2]], 0);
    }
}
