//! A head that is stored though the config says that it is the embedding.

use moeprune_core::TensorId;

use super::Checkpoint;
use crate::Error;

/// So much is compared at each of three places: whole heads take seconds to read.
const PIECE: u64 = 4096;

impl Checkpoint {
    /// A note if the config says that the head is the embedding, and another head is stored.
    pub(super) fn note_on_head(&self) -> Result<Option<String>, Error> {
        let said = &self.family().descriptor().model.tied_embeddings;
        let places = (self.by_part.get(&TensorId::LmHead), self.by_part.get(&TensorId::Embedding));
        let (Some(head), Some(embedding)) = places else { return Ok(None) };
        if self.layout.model.is_some() || !said.needed(&self.config)? {
            return Ok(None);
        }
        let numbers = (head.tensor(), embedding.tensor());
        let (head, embedding) = (self.tensor_at(head), self.tensor_at(embedding));
        let alike = head.dtype == embedding.dtype && head.shape == embedding.shape;
        if alike && self.pieces_are_equal(numbers)? {
            return Ok(None);
        }
        let key = said.found(&self.config)?.unwrap_or("tie_word_embeddings");
        Ok(Some(format!(
            "`{key}` in config.json is true, but `{}` is stored and is not the embedding: the head that is \
             stored is used and kept, as transformers 5 does; engines that go by the key take the embedding",
            head.name
        )))
    }

    /// Whether two tensors of one size are equal at their beginning, in the middle and at their end.
    fn pieces_are_equal(&self, (a, b): (usize, usize)) -> Result<bool, Error> {
        let bytes = self.layout.tensors[a].bytes;
        let last = bytes.saturating_sub(PIECE);
        for start in [0, last / 2, last] {
            let piece = start..bytes.min(start + PIECE);
            if self.layout.read_range(a, piece.clone())? != self.layout.read_range(b, piece)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
