//! The shape of attention once there are queries, keys and values.

use moeprune_core::Reach;

/// The shape of attention: `softmax(q · kᵀ · factor / sqrt(dim)) · v` for each query head, causal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads<'a> {
    pub(super) kv_heads: usize,
    /// Query heads per key-value head.
    pub(super) group: usize,
    /// Width of a head of queries and keys.
    pub(super) dim: usize,
    /// Width of a head of values.
    pub(super) value_dim: usize,
    /// How far back a query looks.
    pub(super) reach: Reach,
    /// What scores are multiplied by, beside `1 / sqrt(dim)`.
    pub(super) factor: f64,
    /// One more score of each query head's softmax, whose share no value gets.
    pub(super) sinks: Option<&'a [f32]>,
}

impl Heads<'_> {
    pub(super) fn query_width(self) -> usize {
        self.kv_heads * self.group * self.dim
    }

    pub(super) fn key_width(self) -> usize {
        self.kv_heads * self.dim
    }

    pub(super) fn value_width(self) -> usize {
        self.kv_heads * self.value_dim
    }

    /// Width of a row of queries, keys and values.
    pub(super) fn row_width(self) -> usize {
        self.query_width() + self.key_width() + self.value_width()
    }

    /// Width of the outputs of all query heads together.
    pub(super) fn output_width(self) -> usize {
        self.kv_heads * self.group * self.value_dim
    }

    /// First key that the query at key index `query` sees, if key 0 stands at position `origin`.
    pub(super) fn first_visible(self, origin: usize, query: usize) -> usize {
        match self.reach {
            Reach::Everything => 0,
            Reach::Window(window) => (query + 1).saturating_sub(window),
            Reach::Chunk(chunk) => query.saturating_sub((origin + query) % chunk),
        }
    }
}
