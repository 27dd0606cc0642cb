//! Greedy generation.

use std::sync::Arc;

use crate::{
    Error, ExpertProvider, LanguageModel, LayerCache, positions::check_length, prefix::Prefix,
};

/// How to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "options a caller fills in")]
pub struct GenerationOptions {
    /// Most tokens to generate for a prompt.
    pub max_new_tokens: usize,
    /// Tokens that end a sequence; they are not part of the result.
    pub stop_ids: Vec<u32>,
    /// Sequences that run at once: more is faster until the matrices are large, and takes more
    /// memory for keys and values. It changes no result.
    pub batch_size: usize,
    /// Tokens that go through the layers together at most, so that a batch of long prompts stays small in
    /// memory; a prompt is not cut, and one always goes. It changes no result.
    pub pass_tokens: usize,
    /// Positions at most for which the sequences that run at once have room in their caches, their prompts
    /// and [`max_new_tokens`](Self::max_new_tokens) counted; one sequence always runs. It changes no result.
    pub cached_positions: usize,
}

impl Default for GenerationOptions {
    /// 256 tokens, nothing that stops earlier, 64 sequences at once, 4096 tokens together, no limit of
    /// positions.
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            stop_ids: Vec::new(),
            batch_size: 64,
            pass_tokens: 4096,
            cached_positions: usize::MAX,
        }
    }
}

impl<E: ExpertProvider> LanguageModel<E> {
    /// Continues each prompt with the likeliest token, again and again (the lowest id among
    /// equals), and returns the new tokens of each.
    ///
    /// A sequence ends with a token of `stop_ids` (left out of the result), when `stop_check`
    /// returns true for it, or after `max_new_tokens`. `stop_check` gets the index of a prompt and
    /// all tokens generated for it, after each new one: the place to decode and look for a stop
    /// string. A sequence that ended makes room for the next prompt, which goes through the layers together
    /// with the next token of the others. What all prompts begin with is run once, and remembered for prompts of
    /// later calls that begin with it. The result is the same as for one prompt at a time: bit for bit in f32 on
    /// the CPU.
    ///
    /// # Errors
    /// Before anything is run: if a prompt is empty, or with `max_new_tokens` more is longer than
    /// the model's positions. Later, if a token is outside the vocabulary or logits are not
    /// finite; the error counts sequences as `prompts` does.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerationOptions,
        stop_check: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>, Error> {
        for (sequence, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::EmptySequence { sequence });
            }
            check_length(prompt.len() + options.max_new_tokens, self.max_positions())?;
        }
        let mut results = vec![Vec::new(); prompts.len()];
        if options.max_new_tokens == 0 || prompts.is_empty() {
            return Ok(results);
        }
        let mut batch = Batch {
            model: self,
            prompts,
            prefix: self.prefix_of(prompts, options.pass_tokens)?,
            options,
            stop_check,
            waiting: 0,
            active: Vec::new(),
            caches: self.caches(0),
            results: &mut results,
        };
        loop {
            batch.admit();
            if batch.active.is_empty() {
                return Ok(results);
            }
            batch.step()?;
        }
    }
}

/// A sequence that is being continued.
struct Active {
    prompt: usize,
    generated: Vec<u32>,
}

struct Batch<'a, E> {
    model: &'a LanguageModel<E>,
    prompts: &'a [Vec<u32>],
    /// What all of them begin with.
    prefix: Arc<Prefix>,
    options: &'a GenerationOptions,
    stop_check: &'a mut dyn FnMut(usize, &[u32]) -> bool,
    /// The first prompt that was not admitted.
    waiting: usize,
    active: Vec<Active>,
    /// One per layer, each with the sequences of `active` in order.
    caches: Vec<LayerCache>,
    results: &'a mut [Vec<u32>],
}

impl<E: ExpertProvider> Batch<'_, E> {
    /// Takes as many prompts as there is room for. They are run with the next step.
    fn admit(&mut self) {
        let room = |prompt: &Vec<u32>| prompt.len() + self.options.max_new_tokens;
        let held = |active: &Active| room(&self.prompts[active.prompt]);
        let mut positions: usize = self.active.iter().map(held).sum();
        // Each active sequence goes on by one token.
        let mut tokens = self.active.len();
        let before = self.active.len();
        while let Some(prompt) = self.prompts.get(self.waiting) {
            positions = positions.saturating_add(room(prompt));
            tokens += prompt.len() - self.prefix.len();
            let is_first = self.active.len() == before;
            let fits = self.active.len() < self.options.batch_size.max(1)
                && (is_first || tokens <= self.options.pass_tokens)
                && (self.active.is_empty() || positions <= self.options.cached_positions);
            if !fits {
                break;
            }
            self.active.push(Active { prompt: self.waiting, generated: Vec::new() });
            self.waiting += 1;
        }
        let new = self.model.after(&self.prefix, self.active.len() - before);
        for (all, new) in self.caches.iter_mut().zip(new) {
            all.extend(new);
        }
    }

    /// Generates one token for every active sequence.
    fn step(&mut self) -> Result<(), Error> {
        let next = |active: &Active| match active.generated.len() {
            0 => self.prompts[active.prompt][self.prefix.len()..].to_vec(),
            generated => active.generated[generated - 1..].to_vec(),
        };
        let next: Vec<Vec<u32>> = self.active.iter().map(next).collect();
        let (active, prompts) = (&self.active, self.prompts);
        let place = |row: usize| {
            let Active { prompt, generated } = &active[row];
            (*prompt, prompts[*prompt].len() + generated.len() - 1)
        };
        let tokens = self.model.likeliest(&next, &mut self.caches, place)?;
        self.append(&tokens);
        Ok(())
    }

    /// Gives each active sequence its token, and drops those that end.
    fn append(&mut self, tokens: &[u32]) {
        let mut keep = vec![true; self.active.len()];
        for ((active, &token), keep) in self.active.iter_mut().zip(tokens).zip(&mut keep) {
            let ends = self.options.stop_ids.contains(&token) || {
                active.generated.push(token);
                (self.stop_check)(active.prompt, &active.generated)
                    || active.generated.len() == self.options.max_new_tokens
            };
            *keep = !ends;
        }
        if keep.iter().all(|&k| k) {
            return;
        }
        for cache in &mut self.caches {
            cache.retain(&keep);
        }
        let mut index = 0;
        self.active.retain_mut(|active| {
            index += 1;
            if !keep[index - 1] {
                self.results[active.prompt] = std::mem::take(&mut active.generated);
            }
            keep[index - 1]
        });
    }
}
