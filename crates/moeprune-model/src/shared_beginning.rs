//! What sequences begin with alike, run once for all of them.

use std::{iter, sync::Arc};

use crate::{
    Error, ExpertProvider, LanguageModel, LayerCache,
    prefix::{PIECE, Prefix, shared},
};

impl<E: ExpertProvider> LanguageModel<E> {
    /// The beginning of all of these sequences, none of which it is the whole of, run if it was not by an earlier
    /// call, at most `together` tokens at a time. It may be empty.
    pub(crate) fn prefix_of<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        together: usize,
    ) -> Result<Arc<Prefix>, Error> {
        let wanted = shared(sequences) / PIECE * PIECE;
        let known = self.remembered().get();
        let known = known.filter(|known| sequences.iter().all(|s| known.begins(s.as_ref())));
        match known {
            // Sequences of one call may have more in common by chance.
            Some(known) if wanted < 2 * known.len() => return Ok(known),
            None if wanted == 0 => return Ok(Arc::new(Prefix { tokens: vec![], caches: vec![] })),
            _ => {}
        }
        let mut caches = match &known {
            Some(known) => self.after(known, 1),
            None => self.caches(1),
        };
        let tokens = sequences[0].as_ref()[..wanted].to_vec();
        let rest = &tokens[known.as_ref().map_or(0, |known| known.len())..];
        for piece in rest.chunks((together / PIECE).max(1) * PIECE) {
            self.hidden(&[piece], &mut caches)?;
        }
        let prefix = Arc::new(Prefix { tokens, caches });
        self.remembered().set(Arc::clone(&prefix));
        Ok(prefix)
    }

    /// Caches of `batch` sequences that continue a beginning, one per layer.
    pub(crate) fn after(&self, prefix: &Prefix, batch: usize) -> Vec<LayerCache> {
        if prefix.caches.is_empty() {
            return self.caches(batch);
        }
        let copies = |cache: &LayerCache| cache.picked(iter::repeat_n(0, batch));
        prefix.caches.iter().map(copies).collect()
    }
}
