//! Log-likelihoods of continuations by a model that this crate runs itself.

use std::{fmt, iter::Peekable, sync::Arc, vec::IntoIter};

use moeprune_eval::{BoxError, Continuation, ContinuationScorer, LogLikelihood};
use moeprune_model::{
    BranchLikelihood, Branches, Error as ModelError, ExpertProvider, HeldExperts, LanguageModel,
};
use moeprune_tokenizer::id_beyond;
use tokenizers::Tokenizer;

use super::STOPPED;
use crate::Progress;

/// Scores continuations with a model: special tokens as the tokenizer adds them, and what does not fit the
/// model's positions dropped from the left. Continuations of the same context share its forward pass.
pub struct NativeScorer<'a, E = HeldExperts> {
    model: Arc<LanguageModel<E>>,
    tokenizer: Tokenizer,
    /// What a text follows if nothing is before it.
    first_token: Option<u32>,
    /// The text of that token: one that begins with it gets no other.
    first_text: String,
    /// Tokens that go through the layers together; `None`: as many as the model chooses.
    pass_tokens: Option<usize>,
    scored: u64,
    contexts_cut: usize,
    was_stopped: bool,
    progress: &'a mut dyn Progress,
}

/// The tokens of a context and of what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    context: Vec<u32>,
    continuation: Vec<u32>,
}

impl<'a, E: ExpertProvider> NativeScorer<'a, E> {
    /// A scorer over a model, its tokenizer and the token that a text without a context follows
    /// ([`first_token`](moeprune_engine::first_token)). `progress` receives the number of scored continuations after each group of
    /// contexts; where it says to stop, the call ends with an error.
    pub fn new(
        model: impl Into<Arc<LanguageModel<E>>>,
        tokenizer: Tokenizer,
        first_token: Option<u32>,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let text = first_token.and_then(|token| tokenizer.decode(&[token], false).ok());
        let (model, first_text) = (model.into(), text.unwrap_or_default());
        let (scored, contexts_cut, was_stopped) = (0, 0, false);
        Self {
            model,
            tokenizer,
            first_token,
            first_text,
            pass_tokens: None,
            scored,
            contexts_cut,
            was_stopped,
            progress,
        }
    }

    /// The same with at most so many tokens that go through the layers together; a run can be stopped after about as
    /// many.
    #[must_use]
    pub fn with_pass_tokens(self, pass_tokens: usize) -> Self {
        Self { pass_tokens: Some(pass_tokens), ..self }
    }

    /// Contexts with their continuations that are run between two looks at whether to stop.
    fn next_group(&self, rest: &mut Peekable<IntoIter<Branches>>) -> Vec<Branches> {
        let Some(most) = self.pass_tokens else { return rest.by_ref().take(TOGETHER).collect() };
        let (mut group, mut tokens) = (Vec::new(), 0);
        let mut fits = |branches: &Branches| {
            tokens += branches.context.len();
            tokens <= most
        };
        while let Some(next) = rest.next_if(|next| fits(next) || group.is_empty()) {
            group.push(next);
        }
        group
    }

    fn likelihoods(&self, group: &[Branches]) -> Result<Vec<Vec<BranchLikelihood>>, ModelError> {
        match self.pass_tokens {
            None => self.model.branch_likelihoods(group),
            Some(most) => self.model.branch_likelihoods_by(group, most),
        }
    }

    /// The most tokens that are run at once.
    #[must_use]
    pub fn context(&self) -> usize {
        self.model.max_positions()
    }

    /// How many contexts lost their beginning so far.
    #[must_use]
    pub fn contexts_cut(&self) -> usize {
        self.contexts_cut
    }

    /// Whether the last call ended with an error because the progress said to stop.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// The tokens of a pair, those that fit.
    fn pair(&mut self, request: &Continuation) -> Result<Pair, BoxError> {
        let mut pair = self.whole_pair(request)?;
        let most = self.context();
        if pair.continuation.is_empty() {
            return Err(
                format!("{:?} has no tokens of its own after its context", request.text).into()
            );
        }
        if pair.continuation.len() > most {
            let tokens = pair.continuation.len();
            return Err(format!(
                "a choice of {tokens} tokens is longer than the model's {most} positions"
            )
            .into());
        }
        let tokens = [pair.context.as_slice(), &pair.continuation].concat();
        if let Some(beyond) = id_beyond(&self.tokenizer, &tokens, self.model.vocab()) {
            return Err(format!("continuation {}: {beyond}", self.scored + 1).into());
        }
        // The last token is predicted and not run.
        let cut = tokens.len().saturating_sub(most + 1);
        self.contexts_cut += usize::from(cut > 0);
        pair.context.drain(..cut);
        Ok(pair)
    }

    fn whole_pair(&self, request: &Continuation) -> Result<Pair, BoxError> {
        if request.context.is_empty() {
            return self.after_nothing(&request.text);
        }
        let cut = request.with_spaces_moved();
        let mut context = self.tokens(&cut.context)?;
        let whole = self.tokens(&format!("{}{}", cut.context, cut.text))?;
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        if context.is_empty() {
            context.push(self.needed_first_token()?);
        }
        Ok(Pair { context, continuation })
    }

    fn after_nothing(&self, text: &str) -> Result<Pair, BoxError> {
        let first = self.needed_first_token()?;
        let mut continuation = self.tokenizer.encode(text, false)?.get_ids().to_vec();
        if continuation.first() == Some(&first) {
            continuation.remove(0);
        }
        Ok(Pair { context: vec![first], continuation })
    }

    fn needed_first_token(&self) -> Result<u32, BoxError> {
        let missing = "a text without a context needs a first token, and the tokenizer's files name neither bos_token nor \
                       eos_token; add one to tokenizer_config.json";
        self.first_token.ok_or_else(|| missing.into())
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, BoxError> {
        let has_first = !self.first_text.is_empty() && text.starts_with(&self.first_text);
        Ok(self.tokenizer.encode(text, !has_first)?.get_ids().to_vec())
    }
}

impl<E: ExpertProvider> ContinuationScorer for NativeScorer<'_, E> {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        let pairs: Vec<Pair> =
            requests.iter().map(|request| self.pair(request)).collect::<Result<_, _>>()?;
        let mut found = Vec::with_capacity(pairs.len());
        let mut rest = grouped(&pairs).into_iter().peekable();
        while rest.peek().is_some() {
            self.was_stopped = self.progress.should_stop();
            if self.was_stopped {
                return Err(STOPPED.into());
            }
            let group = self.next_group(&mut rest);
            let likelihoods = self.likelihoods(&group)?;
            for (branches, likelihoods) in group.iter().zip(likelihoods) {
                let of = branches.continuations.iter().zip(likelihoods);
                found.extend(
                    of.map(|(tokens, one)| {
                        LogLikelihood::new(one.sum, tokens.len(), one.is_greedy)
                    }),
                );
            }
            self.progress.advance(self.scored + found.len() as u64, "");
        }
        self.scored += found.len() as u64;
        Ok(found)
    }
}

/// Contexts between which a run can be stopped.
const TOGETHER: usize = 32;

/// Pairs of equal contexts that follow each other, as one.
fn grouped(pairs: &[Pair]) -> Vec<Branches> {
    let same = |a: &Pair, b: &Pair| a.context == b.context;
    let branches = |pairs: &[Pair]| Branches {
        context: pairs[0].context.clone(),
        continuations: pairs.iter().map(|pair| pair.continuation.clone()).collect(),
    };
    pairs.chunk_by(same).map(branches).collect()
}

impl<E> fmt::Debug for NativeScorer<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeScorer")
            .field("first_token", &self.first_token)
            .field("scored", &self.scored)
            .field("contexts_cut", &self.contexts_cut)
            .finish_non_exhaustive()
    }
}
