//! Answers of a model that this crate runs itself.

use std::{collections::BTreeSet, fmt, sync::Arc};

use moeprune_eval::{BoxError, Ending, Generator, Request};
use moeprune_model::{ExpertProvider, GenerationOptions, HeldExperts, LanguageModel};
use moeprune_tokenizer::id_beyond;
use tokenizers::Tokenizer;

use super::{STOPPED, stop_strings::StopStrings};
use crate::Progress;

/// Answers with a model: greedy, batched, special tokens as the tokenizer adds them.
///
/// An answer ends at a stop string, which may still stand at its end. Requests of a batch with
/// different [`max_new_tokens`](Request::max_new_tokens) are answered group by group; prompts lose
/// their beginning where they and the new tokens exceed the model's positions.
pub struct NativeGenerator<'a, E = HeldExperts> {
    model: Arc<LanguageModel<E>>,
    tokenizer: Tokenizer,
    stop_ids: Vec<u32>,
    limits: GenerationOptions,
    answered: u64,
    prompts_cut: usize,
    was_stopped: bool,
    endings: Vec<Ending>,
    progress: &'a mut dyn Progress,
}

impl<'a, E: ExpertProvider> NativeGenerator<'a, E> {
    /// A generator over a model and its tokenizer. An answer ends at any token of `stop_ids`
    /// ([`Checkpoint::eos_token_ids`](moeprune_checkpoint::Checkpoint::eos_token_ids)). `progress`
    /// receives the number of answers after each batch; where it says to stop, the call ends with
    /// an error after the current token.
    pub fn new(
        model: impl Into<Arc<LanguageModel<E>>>,
        tokenizer: Tokenizer,
        stop_ids: Vec<u32>,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let (model, answered, prompts_cut) = (model.into(), 0, 0);
        let (was_stopped, endings, limits) = (false, Vec::new(), GenerationOptions::default());
        Self {
            model,
            tokenizer,
            stop_ids,
            limits,
            answered,
            prompts_cut,
            was_stopped,
            endings,
            progress,
        }
    }

    /// The same with at most so many [tokens](GenerationOptions::pass_tokens) that go through the layers together,
    /// and so many [positions](GenerationOptions::cached_positions) in the caches of sequences that run at once.
    #[must_use]
    pub fn with_limits(self, pass_tokens: usize, cached_positions: usize) -> Self {
        let limits = GenerationOptions { pass_tokens, cached_positions, ..self.limits };
        Self { limits, ..self }
    }

    /// The most tokens that a prompt and its answer have together.
    #[must_use]
    pub fn context(&self) -> usize {
        self.model.max_positions()
    }

    /// How many prompts lost their beginning so far.
    #[must_use]
    pub fn prompts_cut(&self) -> usize {
        self.prompts_cut
    }

    /// Whether the last call ended with an error because the progress said to stop.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// Answers requests that allow the same number of new tokens, each with its place in the batch.
    fn continue_group(
        &mut self,
        requests: &[(usize, &Request)],
        max_new_tokens: usize,
    ) -> Result<Vec<(String, Ending)>, BoxError> {
        let prompts = self.tokens_of(requests, max_new_tokens)?;
        let options = GenerationOptions {
            max_new_tokens,
            stop_ids: self.stop_ids.clone(),
            batch_size: requests.len(),
            ..self.limits.clone()
        };
        let progress = &mut *self.progress;
        let mut stops = StopStrings::of(&self.tokenizer, requests);
        let mut stopped = progress.should_stop();
        let mut at_stop = vec![false; requests.len()];
        let mut ended = 0;
        let generated = self.model.generate(&prompts, &options, &mut |index, tokens| {
            stopped |= progress.should_stop();
            at_stop[index] = stops.ends(index, tokens, requests[index].1);
            if at_stop[index] || tokens.len() == max_new_tokens {
                ended += 1;
                progress.advance(self.answered + ended, "");
            }
            stopped || at_stop[index]
        })?;
        self.was_stopped = stopped;
        if stopped {
            return Err(STOPPED.into());
        }
        let answer = |(tokens, at_stop): (&Vec<u32>, bool)| {
            let ending = match at_stop {
                true => Ending::Stop,
                false if tokens.len() >= max_new_tokens => Ending::Length,
                false => Ending::EndOfText,
            };
            Ok((self.tokenizer.decode(tokens, true)?, ending))
        };
        generated.iter().zip(at_stop).map(answer).collect()
    }

    /// The tokens of each prompt, the last ones where not all of them fit.
    fn tokens_of(
        &mut self,
        requests: &[(usize, &Request)],
        max_new_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, BoxError> {
        let context = self.context();
        let room = context.checked_sub(max_new_tokens).filter(|&room| room > 0);
        let room = room.ok_or_else(|| {
            format!(
                "the task asks for {max_new_tokens} new tokens, but the model takes only {context} \
                 tokens in all"
            )
        })?;
        let mut prompts = Vec::with_capacity(requests.len());
        for (place, request) in requests {
            let encoding = self.tokenizer.encode(request.prompt.as_str(), true)?;
            let ids = encoding.get_ids();
            if let Some(beyond) = id_beyond(&self.tokenizer, ids, self.model.vocab()) {
                let number = self.answered + *place as u64 + 1;
                return Err(format!("prompt {number}: {beyond}").into());
            }
            self.prompts_cut += usize::from(ids.len() > room);
            prompts.push(ids[ids.len().saturating_sub(room)..].to_vec());
        }
        Ok(prompts)
    }
}

impl<E: ExpertProvider> Generator for NativeGenerator<'_, E> {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        let limits: BTreeSet<usize> = requests.iter().map(|r| r.max_new_tokens).collect();
        let mut answers = vec![String::new(); requests.len()];
        self.endings = vec![Ending::Length; requests.len()];
        for limit in limits {
            let group: Vec<(usize, &Request)> =
                requests.iter().enumerate().filter(|(_, r)| r.max_new_tokens == limit).collect();
            let continued = self.continue_group(&group, limit)?;
            for ((place, _), (answer, ending)) in group.iter().zip(continued) {
                (answers[*place], self.endings[*place]) = (answer, ending);
            }
        }
        self.answered += requests.len() as u64;
        self.progress.advance(self.answered, "");
        Ok(answers)
    }

    fn endings(&self) -> Option<&[Ending]> {
        Some(&self.endings)
    }
}

impl<E> fmt::Debug for NativeGenerator<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeGenerator")
            .field("stop_ids", &self.stop_ids)
            .field("answered", &self.answered)
            .field("prompts_cut", &self.prompts_cut)
            .finish_non_exhaustive()
    }
}
