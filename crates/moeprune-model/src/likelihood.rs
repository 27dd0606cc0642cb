//! How likely texts are after another.

use candle_core::Tensor;

use crate::{
    Error, ExpertProvider, LanguageModel, LayerCache,
    ends::check_logits,
    exponential::log_sum_exp,
    ops,
    positions::check_length,
    prefix::{PIECE, Prefix, shared},
};

/// Tokens run together at most, if the caller does not say, so that a batch stays small in memory.
const TOGETHER: usize = 4096;

/// Contexts that are looked at for what they begin with alike.
const ALIKE: usize = 256;

/// Tokens that are given, and several that may follow, each by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Branches {
    /// What is given, at least one token.
    pub context: Vec<u32>,
    /// What may follow, each at least one token.
    pub continuations: Vec<Vec<u32>>,
}

/// How likely a continuation is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct BranchLikelihood {
    /// Sum over its tokens of `ln p(token | those before)`, in nats.
    pub sum: f64,
    /// Whether each of its tokens is the likeliest (the lowest id among equals) after those before.
    pub is_greedy: bool,
}

impl<E: ExpertProvider> LanguageModel<E> {
    /// How likely each continuation is after its context. A context is run once for all of its continuations, and what
    /// neighbouring contexts begin with once for all of them.
    ///
    /// What is found of a continuation depends neither on the others nor on the other contexts: bit for bit in f32 on the CPU,
    /// and up to rounding elsewhere.
    ///
    /// # Errors
    /// Before anything is run: if a context or a continuation is empty, or both without the last token are longer than the
    /// model's positions. Later, if a token is outside the vocabulary or logits are not finite; the error counts contexts as
    /// sequences.
    pub fn branch_likelihoods(
        &self,
        branches: &[Branches],
    ) -> Result<Vec<Vec<BranchLikelihood>>, Error> {
        self.branch_likelihoods_by(branches, TOGETHER)
    }

    /// As [`branch_likelihoods`](Self::branch_likelihoods), with at most so many tokens that go through the layers
    /// together. A context or a continuation is not cut.
    ///
    /// # Errors
    /// As [`branch_likelihoods`](Self::branch_likelihoods).
    pub fn branch_likelihoods_by(
        &self,
        branches: &[Branches],
        pass_tokens: usize,
    ) -> Result<Vec<Vec<BranchLikelihood>>, Error> {
        for (sequence, Branches { context, continuations }) in branches.iter().enumerate() {
            if context.is_empty() || continuations.iter().any(Vec::is_empty) {
                return Err(Error::EmptySequence { sequence });
            }
            let longest = continuations.iter().map(Vec::len).max().unwrap_or(1);
            check_length(context.len() + longest - 1, self.max_positions())?;
        }
        let mut found = Vec::with_capacity(branches.len());
        while found.len() < branches.len() {
            let first = found.len();
            let rest = &branches[first..];
            let contexts: Vec<&[u32]> =
                rest.iter().take(ALIKE).map(|b| b.context.as_slice()).collect();
            let contexts = &contexts[..alike(&contexts)];
            let prefix = self.prefix_of(contexts, pass_tokens)?;
            let own = |context: &&[u32]| context.len() - prefix.len();
            let count = together(contexts, own, pass_tokens);
            found.extend(self.of_contexts(&rest[..count], (first, &*prefix), pass_tokens)?);
        }
        Ok(found)
    }

    /// The contexts run together, then their continuations. The first one's number is for errors; all begin with
    /// `prefix`.
    fn of_contexts(
        &self,
        branches: &[Branches],
        (first, prefix): (usize, &Prefix),
        pass_tokens: usize,
    ) -> Result<Vec<Vec<BranchLikelihood>>, Error> {
        let contexts: Vec<&[u32]> = branches.iter().map(|b| &b.context[prefix.len()..]).collect();
        let mut caches = self.after(prefix, contexts.len());
        let hidden = self.hidden(&contexts, &mut caches)?;
        let last: Vec<u32> = ends(&contexts).map(|end| end as u32 - 1).collect();
        let mut paths: Vec<Path<'_>> = Vec::new();
        let at_once = self.head().rows_at_once();
        for (group, (rows, own)) in last.chunks(at_once).zip(branches.chunks(at_once)).enumerate() {
            let begin = group * at_once;
            let place = |row: usize| (first + begin + row, own[row].context.len() - 1);
            let logits = self.rows(&ops::gather_rows(&hidden, rows)?, place)?;
            for (context, (branches, logits)) in
                own.iter().zip(logits.chunks_exact(self.vocab())).enumerate()
            {
                for tokens in &branches.continuations {
                    let context = begin + context;
                    let mut path = Path { context, tokens, sum: 0.0, is_greedy: true };
                    path.add(logits, 0)?;
                    paths.push(path);
                }
            }
        }
        let mut longer: Vec<&mut Path<'_>> =
            paths.iter_mut().filter(|path| path.tokens.len() > 1).collect();
        while !longer.is_empty() {
            let count = together(&longer, |path| path.tokens.len(), pass_tokens);
            let rest = longer.split_off(count);
            self.follow(&mut longer, &caches, first)?;
            longer = rest;
        }
        let mut found = vec![Vec::new(); branches.len()];
        for Path { context, sum, is_greedy, .. } in paths {
            found[context].push(BranchLikelihood { sum, is_greedy });
        }
        Ok(found)
    }

    /// Runs continuations after what the caches hold of their contexts.
    fn follow(
        &self,
        paths: &mut [&mut Path<'_>],
        contexts: &[LayerCache],
        first: usize,
    ) -> Result<(), Error> {
        let tokens: Vec<&[u32]> =
            paths.iter().map(|path| &path.tokens[..path.tokens.len() - 1]).collect();
        let of = |cache: &LayerCache| cache.picked(paths.iter().map(|path| path.context));
        let mut caches: Vec<LayerCache> = contexts.iter().map(of).collect();
        let hidden = self.hidden(&tokens, &mut caches)?;
        let mut start = 0;
        for (path, end) in paths.iter_mut().zip(ends(&tokens)) {
            let place = |row: usize| (first + path.context, row);
            let logits = self.rows(&hidden.narrow(0, start, end - start)?, place)?;
            for (row, logits) in logits.chunks_exact(self.vocab()).enumerate() {
                path.add(logits, row + 1)?;
            }
            start = end;
        }
        Ok(())
    }

    /// The logits of some rows of the last layer's output, one after another.
    fn rows(
        &self,
        hidden: &Tensor,
        place: impl Fn(usize) -> (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        let logits = ops::to_vec(&self.head().logits(hidden)?)?;
        check_logits(&logits, self.vocab(), place)?;
        Ok(logits)
    }
}

/// How many contexts from the first on begin alike: with half or more of what the first two do. All, if the first
/// two have less in common than is shared.
fn alike(contexts: &[&[u32]]) -> usize {
    let of_two = shared(&contexts[..contexts.len().min(2)]);
    if of_two < PIECE {
        return contexts.len();
    }
    let begins = |other: &&&[u32]| 2 * shared(&[contexts[0], **other]) >= of_two;
    1 + contexts[1..].iter().take_while(begins).count()
}

/// How many of some items of so many tokens are run together, `most` tokens or less: at least one.
fn together<T>(items: &[T], tokens: impl Fn(&T) -> usize, most: usize) -> usize {
    let mut sum = 0;
    let fits = |item: &&T| {
        sum += tokens(item);
        sum <= most
    };
    items.iter().take_while(fits).count().max(1)
}

/// Where each of some sequences ends among the rows of all.
fn ends<'a>(sequences: &'a [&[u32]]) -> impl Iterator<Item = usize> + 'a {
    sequences.iter().scan(0, |end, sequence| {
        *end += sequence.len();
        Some(*end)
    })
}

/// A continuation, as far as it is followed.
struct Path<'a> {
    context: usize,
    tokens: &'a [u32],
    sum: f64,
    is_greedy: bool,
}

impl Path<'_> {
    /// Adds the token at `position`, given the logits before it.
    fn add(&mut self, logits: &[f32], position: usize) -> Result<(), Error> {
        let token = self.tokens[position];
        let own = *logits.get(token as usize).ok_or(Error::Token { token, vocab: logits.len() })?;
        self.sum += f64::from(own) - log_sum_exp(logits);
        let before = &logits[..token as usize];
        self.is_greedy &= before.iter().all(|&v| v < own) && logits.iter().all(|&v| v <= own);
        Ok(())
    }
}
