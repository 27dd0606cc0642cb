//! Constant factors between the blocks of a model.

use serde::Serialize;

/// What the outputs of blocks are multiplied by (Granite); 1 where a family says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Multipliers {
    /// Embeddings, on their way into the first layer.
    pub embedding: f64,
    /// What attention and feed-forward blocks add to the residual stream.
    pub residual: f64,
    /// Logits.
    pub logits: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { embedding: 1.0, residual: 1.0, logits: 1.0 }
    }
}
