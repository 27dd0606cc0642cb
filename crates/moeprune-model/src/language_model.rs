//! A whole model.

use candle_core::Tensor;
use moeprune_core::{ModelSpec, TensorSource};

use crate::{
    Compute, Embedding, Error, ExpertProvider, Head, HeldExperts, LayerCache, LayerTrunk, NoSink,
    cache::SequenceCache, divided::Divided, ends::check_logits, layer, ops,
    positions::check_length, prefix::Remembered,
};

/// Embedding, layers and head: for evaluation. All but the experts is in memory; these come from an
/// [`ExpertProvider`], by default from memory too.
///
/// It is `Sync`, and what it computes for one sequence does not depend on others in the batch, so
/// several threads may share one and divide the sequences between them. Where matrices are small, it
/// divides them itself.
#[derive(Debug)]
pub struct LanguageModel<E = HeldExperts> {
    embedding: Embedding,
    trunks: Vec<LayerTrunk>,
    experts: E,
    head: Head,
    vocab: usize,
    max_positions: usize,
    divided: Divided,
    remembered: Remembered,
}

impl LanguageModel {
    /// Reads a whole model to where it will run.
    ///
    /// # Errors
    /// As [`Layer::load`](crate::Layer::load).
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let experts = HeldExperts::load(source, spec, compute)?;
        Self::with_experts(source, spec, compute, experts)
    }
}

impl<E: ExpertProvider> LanguageModel<E> {
    /// Reads all but the experts of a model to where it will run.
    ///
    /// # Errors
    /// As [`LayerTrunk::load`], of the embedding and the head too.
    pub fn with_experts(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        compute: &Compute,
        experts: E,
    ) -> Result<Self, Error> {
        let trunk = |layer| LayerTrunk::load(source, spec, layer, compute);
        Ok(Self {
            embedding: Embedding::load(source, spec, compute)?,
            trunks: (0..spec.layers.len()).map(trunk).collect::<Result<_, _>>()?,
            divided: Divided::of(spec, compute, &experts),
            experts,
            head: Head::load(source, spec, compute)?,
            vocab: spec.vocab,
            max_positions: spec.max_positions,
            remembered: Remembered::default(),
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

    /// Where its experts come from.
    #[must_use]
    pub fn experts(&self) -> &E {
        &self.experts
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

    /// What sequences of earlier calls began with.
    pub(crate) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Empty caches of `batch` sequences, one per layer.
    pub(crate) fn caches(&self, batch: usize) -> Vec<LayerCache> {
        self.trunks.iter().map(|_| LayerCache::new(batch)).collect()
    }

    /// Runs all layers on new tokens of each sequence: `[Σ lens, hidden]`, before the final norm.
    pub(crate) fn hidden<S: AsRef<[u32]> + Sync>(
        &self,
        sequences: &[S],
        caches: &mut [LayerCache],
    ) -> Result<Tensor, Error> {
        self.check(sequences)?;
        let parts = self.divided.run(sequences, caches, |_, sequences, caches| {
            self.through_layers(sequences, caches)
        })?;
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 0)?),
        }
    }

    /// Runs all layers on new tokens of each sequence, and returns the likeliest token after each sequence,
    /// the lowest id among equals. `place` says which sequence and position that is, for errors.
    pub(crate) fn likeliest<S: AsRef<[u32]> + Sync>(
        &self,
        sequences: &[S],
        caches: &mut [LayerCache],
        place: impl Fn(usize) -> (usize, usize) + Sync,
    ) -> Result<Vec<u32>, Error> {
        self.check(sequences)?;
        let parts = self.divided.run(sequences, caches, |first, sequences, caches| {
            let hidden = self.through_layers(sequences, caches)?;
            let mut end = 0;
            let last = |sequence: &S| {
                end += sequence.as_ref().len();
                end as u32 - 1
            };
            let rows: Vec<u32> = sequences.iter().map(last).collect();
            let mut tokens = Vec::with_capacity(rows.len());
            for rows in rows.chunks(self.head.rows_at_once()) {
                let logits = self.head.logits(&ops::gather_rows(&hidden, rows)?)?;
                let logits = ops::to_vec(&logits)?;
                check_logits(&logits, self.vocab, |row| place(first + tokens.len() + row))?;
                tokens.extend(logits.chunks_exact(self.vocab).map(argmax));
            }
            Ok(tokens)
        })?;
        Ok(parts.concat())
    }

    fn check<S: AsRef<[u32]>>(&self, sequences: &[S]) -> Result<(), Error> {
        let lens = || sequences.iter().map(|sequence| sequence.as_ref().len());
        if let Some(sequence) = lens().position(|len| len == 0) {
            return Err(Error::EmptySequence { sequence });
        }
        check_length(lens().max().unwrap_or(0), self.max_positions)
    }

    /// `caches` has those of the sequences for each layer.
    fn through_layers<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        caches: &mut [&mut [SequenceCache]],
    ) -> Result<Tensor, Error> {
        let lens: Vec<usize> = sequences.iter().map(|s| s.as_ref().len()).collect();
        let tokens: Vec<u32> = sequences.iter().flat_map(|s| s.as_ref()).copied().collect();
        let mut hidden = self.embedding.embed(&tokens)?;
        for (number, trunk) in self.trunks.iter().enumerate() {
            let (before, own) = caches.split_at_mut(number);
            let own = &mut *own[0];
            if let Some(before) = before.last().filter(|_| trunk.takes_over_keys()) {
                for (own, before) in own.iter_mut().zip(before.iter()) {
                    own.selected.clone_from(&before.selected);
                }
            }
            hidden = layer::run(trunk, &hidden, (&lens, own), &mut NoSink, |busy, visit| {
                self.experts.for_each(number, busy, visit)
            })?;
        }
        Ok(hidden)
    }
}

/// The index of the largest value, the first among equals.
fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (token, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = token;
        }
    }
    best as u32
}
