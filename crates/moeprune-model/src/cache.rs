//! What a layer keeps of positions already seen: keys and values, or a state that does not grow.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{Error, selected_keys::SelectedKeys};

/// Keys and values of one layer, for the sequences of a batch; or the state that a layer keeps in place
/// of them.
///
/// Sequences may have different lengths. Keys and values grow with them; nothing is dropped behind a
/// sliding window.
#[derive(Debug, Default)]
pub struct LayerCache {
    pub(crate) sequences: Vec<SequenceCache>,
}

impl LayerCache {
    /// An empty cache for `batch` sequences.
    #[must_use]
    pub fn new(batch: usize) -> Self {
        Self { sequences: (0..batch).map(|_| SequenceCache::default()).collect() }
    }

    /// Sequences in the batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.sequences.len()
    }

    /// Positions cached of sequence `index`.
    #[must_use]
    pub fn positions(&self, index: usize) -> Option<usize> {
        self.sequences.get(index).map(|sequence| sequence.len)
    }

    /// Takes over which keys the tokens of the last call see, from the cache of the layer before. To be
    /// called before each call of a layer that takes over what another one selected.
    ///
    /// # Errors
    /// [`Error::CacheBatch`] if the other cache has another number of sequences.
    pub fn see_the_keys_of(&mut self, before: &Self) -> Result<(), Error> {
        if before.batch() != self.batch() {
            return Err(Error::CacheBatch { cached: self.batch(), batch: before.batch() });
        }
        for (own, before) in self.sequences.iter_mut().zip(&before.sequences) {
            own.selected.clone_from(&before.selected);
        }
        Ok(())
    }

    /// Appends the sequences of another batch.
    pub(crate) fn extend(&mut self, other: Self) {
        self.sequences.extend(other.sequences);
    }

    /// A copy of the sequences with these numbers.
    pub(crate) fn picked(&self, sequences: impl Iterator<Item = usize>) -> Self {
        Self { sequences: sequences.map(|index| self.sequences[index].clone()).collect() }
    }

    /// Keeps the sequences for which `keep` is true, in order.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        let mut index = 0;
        self.sequences.retain(|_| {
            index += 1;
            keep[index - 1]
        });
    }
}

/// Keys and values of one sequence, or its state.
#[derive(Debug, Clone, Default)]
pub(crate) struct SequenceCache {
    /// Position of the first key: not 0 only for a forward pass without a cache that starts
    /// elsewhere.
    pub(crate) first: usize,
    /// Positions held.
    pub(crate) len: usize,
    pub(crate) store: Store,
    /// In layers that keep a state in place of keys and values.
    pub(crate) running: Running,
    /// Keys of the indexer, `[positions, dim]`, in layers that have one.
    pub(crate) indexer_keys: Option<Tensor>,
    /// The keys that the tokens of the last call see; `None`: all at or before them.
    pub(crate) selected: Option<Arc<SelectedKeys>>,
    /// Whether no call continues what it holds.
    pub(crate) ends: bool,
}

impl SequenceCache {
    /// For a pass without a cache.
    pub(crate) fn starting_at(first: usize) -> Self {
        Self { first, ends: true, ..Self::default() }
    }

    /// Position of the next token.
    pub(crate) fn next(&self) -> usize {
        self.first + self.len
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) enum Store {
    #[default]
    Empty,
    /// One entry per key-value head.
    Host(Vec<HeadCache>),
    /// Keys and values, each `[1, kv_heads, positions, width]`.
    Device(Tensor, Tensor),
}

/// What a layer keeps of a sequence in place of keys and values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    /// The last inputs of a convolution, `[kernel − 1, channels]`.
    pub(crate) inputs: Option<Tensor>,
    /// What each head remembers, `[heads, key_dim, value_dim]`.
    pub(crate) state: Option<Tensor>,
}

/// Counts `lens[i]` more tokens of sequence `i`, for layers that keep a state.
pub(crate) fn advance(caches: &mut [SequenceCache], lens: &[usize]) {
    for (cache, len) in caches.iter_mut().zip(lens) {
        cache.len += len;
    }
}

/// Keys and values of one key-value head of one sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadCache {
    /// Keys after rotation, `[head_dim, capacity]`: scores then read them front to back.
    pub(crate) keys: Vec<f32>,
    pub(crate) capacity: usize,
    /// `[positions, value_dim]`
    pub(crate) values: Vec<f32>,
}

impl HeadCache {
    /// Makes room for `wanted` positions, of which `len` are there. Widths are those of a key and of a
    /// value.
    pub(crate) fn reserve(&mut self, widths: (usize, usize), len: usize, wanted: usize) {
        if wanted <= self.capacity {
            return;
        }
        let (dim, value_dim) = widths;
        // A sequence that grows token by token is copied a logarithmic number of times; one that
        // comes whole gets what it needs.
        let capacity = if len == 0 { wanted } else { wanted.max(2 * self.capacity) };
        let mut keys = vec![0.0; dim * capacity];
        for d in 0..dim {
            keys[d * capacity..][..len].copy_from_slice(&self.keys[d * self.capacity..][..len]);
        }
        self.keys = keys;
        self.capacity = capacity;
        self.values.reserve((wanted - len) * value_dim);
    }
}
