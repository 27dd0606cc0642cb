//! A whole model in memory.

use candle_core::Tensor;
use moeprune_core::{ModelSpec, TensorSource};

use crate::{
    ActivationSink, Compute, Embedding, Error, Head, Layer, LayerCache, NoSink, ends::check_logits,
    ops, positions::check_length,
};

/// Embedding, layers and head, all in memory: for evaluating models that fit.
///
/// It is `Sync`, and what it computes for one sequence does not depend on others in the batch, so
/// several threads may share one and divide the sequences between them.
#[derive(Debug)]
pub struct LanguageModel {
    embedding: Embedding,
    layers: Vec<Layer>,
    head: Head,
    vocab: usize,
    max_positions: usize,
}

impl LanguageModel {
    /// Reads a whole model to where it will run.
    ///
    /// # Errors
    /// As [`Layer::load`].
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let layer = |l| Layer::load(source, spec, l, compute);
        Ok(Self {
            embedding: Embedding::load(source, spec, compute)?,
            layers: (0..spec.layers.len()).map(layer).collect::<Result<_, _>>()?,
            head: Head::load(source, spec, compute)?,
            vocab: spec.vocab,
            max_positions: spec.max_positions,
        })
    }

    /// Positions the model was made for.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Rows of the embedding: all token ids are below.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits of every position, `[len, vocab]` per sequence; lengths may differ.
    ///
    /// # Errors
    /// If a sequence is empty or too long, a token is outside the vocabulary, or logits are not
    /// finite.
    pub fn logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Tensor>, Error> {
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let logits =
            self.head.logits(&self.hidden(sequences, &mut self.caches(sequences.len()))?)?;
        let mut first = 0;
        let split = |(sequence, tokens): (usize, &Vec<u32>)| {
            let own = logits.narrow(0, first, tokens.len())?;
            first += tokens.len();
            check_logits(&ops::to_vec(&own)?, self.vocab, |position| (sequence, position))?;
            Ok(own)
        };
        sequences.iter().enumerate().map(split).collect()
    }

    /// Sum over the block of `−ln p(token | those before)`, in nats, and the number of tokens
    /// predicted, which is one less than the block has. Perplexity is `exp(sum / count)` over all
    /// blocks.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn negative_log_likelihood(&self, block: &[u32]) -> Result<(f64, usize), Error> {
        let hidden = self.hidden(&[block], &mut self.caches(1))?;
        self.head.negative_log_likelihood(&hidden, block, 0)
    }

    /// What comes after the layers.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Empty caches of `batch` sequences, one per layer.
    pub(crate) fn caches(&self, batch: usize) -> Vec<LayerCache> {
        self.layers.iter().map(|_| LayerCache::new(batch)).collect()
    }

    /// Runs all layers on new tokens of each sequence: `[Σ lens, hidden]`, before the final norm.
    pub(crate) fn hidden<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        caches: &mut [LayerCache],
    ) -> Result<Tensor, Error> {
        let lens: Vec<usize> = sequences.iter().map(|s| s.as_ref().len()).collect();
        if let Some(sequence) = lens.iter().position(|&len| len == 0) {
            return Err(Error::EmptySequence { sequence });
        }
        check_length(lens.iter().copied().max().unwrap_or(0), self.max_positions)?;
        let tokens: Vec<u32> = sequences.iter().flat_map(|s| s.as_ref()).copied().collect();
        let mut hidden = self.embedding.embed(&tokens)?;
        let sink: &mut dyn ActivationSink = &mut NoSink;
        let mut before: Option<&LayerCache> = None;
        for (layer, cache) in self.layers.iter().zip(caches) {
            if let Some(before) = before.filter(|_| layer.takes_over_keys()) {
                cache.see_the_keys_of(before)?;
            }
            hidden = layer.forward_ragged(&hidden, &lens, &mut cache.sequences, sink)?;
            before = Some(cache);
        }
        Ok(hidden)
    }

    /// The likeliest token after each of these rows of [`hidden`](Self::hidden), the lowest id
    /// among equals. `place` says which sequence and position a row is, for errors.
    pub(crate) fn likeliest(
        &self,
        hidden: &Tensor,
        rows: &[u32],
        place: impl Fn(usize) -> (usize, usize),
    ) -> Result<Vec<u32>, Error> {
        let logits = ops::to_vec(&self.head.logits(&ops::gather_rows(hidden, rows)?)?)?;
        check_logits(&logits, self.vocab, place)?;
        let argmax = |row: &[f32]| {
            let mut best = 0;
            for (token, value) in row.iter().enumerate() {
                if *value > row[best] {
                    best = token;
                }
            }
            best as u32
        };
        Ok(logits.chunks_exact(self.vocab).map(argmax).collect())
    }
}
