//! Greedy generation.

use crate::{Error, LanguageModel, LayerCache, positions::check_length};

/// Prompt tokens run together at most, so that a batch of long prompts stays small in memory.
const PREFILL_TOKENS: usize = 4096;

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
}

impl Default for GenerationOptions {
    /// 256 tokens, nothing that stops earlier, 64 sequences at once.
    fn default() -> Self {
        Self { max_new_tokens: 256, stop_ids: Vec::new(), batch_size: 64 }
    }
}

/// A sequence that is being continued.
struct Active {
    prompt: usize,
    prompt_len: usize,
    generated: Vec<u32>,
}

impl LanguageModel {
    /// Continues each prompt with the likeliest token, again and again (the lowest id among
    /// equals), and returns the new tokens of each.
    ///
    /// A sequence ends with a token of `stop_ids` (left out of the result), when `stop_check`
    /// returns true for it, or after `max_new_tokens`. `stop_check` gets the index of a prompt and
    /// all tokens generated for it, after each new one: the place to decode and look for a stop
    /// string. A sequence that ended makes room for the next prompt. The result is the same as
    /// for one prompt at a time.
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
        let mut results = vec![Vec::new(); prompts.len()];
        for (sequence, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::EmptySequence { sequence });
            }
            check_length(prompt.len() + options.max_new_tokens, self.max_positions())?;
        }
        if options.max_new_tokens == 0 {
            return Ok(results);
        }
        let mut batch = Batch {
            model: self,
            options,
            stop_check,
            active: Vec::new(),
            caches: self.caches(0),
            results: &mut results,
        };
        let mut waiting = 0;
        loop {
            while waiting < prompts.len() && batch.active.len() < options.batch_size.max(1) {
                let room = options.batch_size.max(1) - batch.active.len();
                let mut tokens = 0;
                let fits = |prompt: &&Vec<u32>| {
                    tokens += prompt.len();
                    tokens <= PREFILL_TOKENS
                };
                let count = prompts[waiting..].iter().take(room).take_while(fits).count().max(1);
                batch.admit(waiting, &prompts[waiting..waiting + count])?;
                waiting += count;
            }
            if batch.active.is_empty() {
                return Ok(results);
            }
            batch.step()?;
        }
    }
}

struct Batch<'a> {
    model: &'a LanguageModel,
    options: &'a GenerationOptions,
    stop_check: &'a mut dyn FnMut(usize, &[u32]) -> bool,
    active: Vec<Active>,
    /// One per layer, each with the sequences of `active` in order.
    caches: Vec<LayerCache>,
    results: &'a mut [Vec<u32>],
}

impl Batch<'_> {
    /// Runs the prompts from index `first` on and generates one token for each.
    fn admit(&mut self, first: usize, prompts: &[Vec<u32>]) -> Result<(), Error> {
        let mut caches = self.model.caches(prompts.len());
        let hidden = self.model.hidden(prompts, &mut caches)?;
        let mut end = 0;
        let last = |prompt: &Vec<u32>| {
            end += prompt.len();
            (end - 1) as u32
        };
        let rows: Vec<u32> = prompts.iter().map(last).collect();
        let place = |row: usize| (first + row, prompts[row].len() - 1);
        let tokens = self.model.likeliest(&hidden, &rows, place)?;
        let new = self.active.len();
        for (offset, prompt) in prompts.iter().enumerate() {
            let generated = Vec::new();
            self.active.push(Active {
                prompt: first + offset,
                prompt_len: prompt.len(),
                generated,
            });
        }
        for (all, new) in self.caches.iter_mut().zip(caches) {
            all.extend(new);
        }
        self.append(new, &tokens);
        Ok(())
    }

    /// Generates one token for every active sequence.
    fn step(&mut self) -> Result<(), Error> {
        let last: Vec<Vec<u32>> =
            self.active.iter().map(|a| a.generated.last().copied().into_iter().collect()).collect();
        let hidden = self.model.hidden(&last, &mut self.caches)?;
        let rows: Vec<u32> = (0..last.len() as u32).collect();
        let place = |row: usize| {
            let active = &self.active[row];
            (active.prompt, active.prompt_len + active.generated.len() - 1)
        };
        let tokens = self.model.likeliest(&hidden, &rows, place)?;
        self.append(0, &tokens);
        Ok(())
    }

    /// Gives each active sequence from index `first` on its token, and drops those that end.
    fn append(&mut self, first: usize, tokens: &[u32]) {
        let mut keep = vec![true; self.active.len()];
        for (index, &token) in tokens.iter().enumerate() {
            let active = &mut self.active[first + index];
            let ends = self.options.stop_ids.contains(&token) || {
                active.generated.push(token);
                (self.stop_check)(active.prompt, &active.generated)
                    || active.generated.len() == self.options.max_new_tokens
            };
            keep[first + index] = !ends;
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
