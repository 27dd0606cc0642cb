//! Log-likelihoods of a served model.

mod alignment;
mod likelihood;
mod probe;

use std::{collections::HashMap, fmt};

use moeprune_eval::{BoxError, Continuation, ContinuationScorer, LogLikelihood};
use serde_json::{Value, json};

use crate::{
    AnswerProblem, Endpoint, Error, Vocabulary,
    answer::Answers,
    endpoint::{Call, Prompt},
    excerpt::excerpt,
};
use likelihood::{Part, prompt_tokens, sum_of};

/// Choices after one context are asked together, at most so many.
const CHOICES: usize = 16;

/// Scores continuations with a served model that says how likely a prompt's tokens are.
///
/// The first call sees whether it does, and refuses a server that does not. With a [`Vocabulary`], texts are sent as
/// token ids, so that what is scored is certain, and lose their beginning where they exceed the context. A server that
/// takes text only must make as many tokens of each as the vocabulary does.
///
/// Without a vocabulary the server counts: the context is sent with the texts that begin with it, and as many tokens as
/// it has by itself belong to it. That is the harness's definition, by the server's tokenizer.
pub struct EndpointScorer<'a> {
    endpoint: Endpoint,
    vocabulary: Option<Vocabulary<'a>>,
    /// How texts are sent, once it is known.
    form: Option<Form>,
    should_stop: Box<dyn Fn() -> bool + 'a>,
    prompts_cut: usize,
}

/// How texts are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Ids,
    Text,
}

/// A text to score: where its context ends, if the client knows, and how many tokens it has then.
struct Asked {
    prompt: Prompt,
    part: Option<Part>,
}

/// Requests that one call answers, by their places; a first prompt of the context alone where the server counts.
#[derive(Default)]
struct Group {
    places: Vec<usize>,
    parts: Vec<Option<Part>>,
    shown: Vec<String>,
    /// The prompts, a context alone included.
    prompts: Vec<Prompt>,
}

impl fmt::Debug for EndpointScorer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointScorer")
            .field("endpoint", &self.endpoint)
            .field("vocabulary", &self.vocabulary)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl<'a> EndpointScorer<'a> {
    /// A scorer over a server. It makes no call yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, vocabulary: Option<Vocabulary<'a>>) -> Self {
        Self { endpoint, vocabulary, form: None, should_stop: Box::new(|| false), prompts_cut: 0 }
    }

    /// Ends a call with [`Error::Stopped`] soon after this says so.
    #[must_use]
    pub fn stopped_by(mut self, should_stop: impl Fn() -> bool + 'a) -> Self {
        self.should_stop = Box::new(should_stop);
        self
    }

    /// How many texts lost their beginning so far.
    #[must_use]
    pub fn prompts_cut(&self) -> usize {
        self.prompts_cut
    }

    /// Sees whether the server says how likely a prompt's tokens are, before anything is scored.
    ///
    /// # Errors
    /// [`Error::NoPromptLogProbabilities`] if it does not; any other if it cannot be asked.
    pub fn probe(&mut self) -> Result<(), Error> {
        if self.form.is_none() {
            self.form =
                Some(probe::form(&self.endpoint, self.vocabulary.as_ref(), &*self.should_stop)?);
        }
        Ok(())
    }

    fn scores(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.probe()?;
        let (groups, calls) = self.calls(requests)?;
        let endpoint = &self.endpoint;
        let mut done = |place: usize, answers: &Answers| {
            let group: &Group = &groups[place];
            let scores = group.scores(endpoint, answers)?;
            let mut each = group.places.iter().zip(scores);
            each.try_for_each(|(&place, score)| note(place, score)).map_err(Error::Keep)
        };
        let answers = endpoint.ask_all(calls, &*self.should_stop, &mut done)?;
        let mut found = vec![LogLikelihood::new(0.0, 0, false); requests.len()];
        for (group, answers) in groups.iter().zip(&answers) {
            for (&place, score) in group.places.iter().zip(group.scores(endpoint, answers)?) {
                found[place] = score;
            }
        }
        Ok(found)
    }

    /// One call for the choices after one context.
    fn calls(&mut self, requests: &[Continuation]) -> Result<(Vec<Group>, Vec<Call>), Error> {
        let cut: Vec<Continuation> = requests.iter().map(Continuation::with_spaces_moved).collect();
        let mut by_context: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (place, pair) in cut.iter().enumerate() {
            match last.get(&*pair.context) {
                Some(&group) if by_context[group].1.len() < CHOICES => {
                    by_context[group].1.push(place)
                }
                _ => {
                    last.insert(&pair.context, by_context.len());
                    by_context.push((&pair.context, vec![place]));
                }
            }
        }
        let (mut groups, mut calls) = (Vec::new(), Vec::new());
        for (context, places) in by_context {
            let mut prompts = Vec::new();
            if self.vocabulary.is_none() {
                prompts.push(Prompt::Text(context.to_owned()));
            }
            let mut group = Group::default();
            for place in places {
                let Asked { prompt, part } = self.asked(&cut[place])?;
                prompts.push(prompt);
                group.places.push(place);
                group.parts.push(part);
                group.shown.push(format!("{:?}", excerpt(&cut[place].text, 60)));
            }
            group.prompts.clone_from(&prompts);
            groups.push(group);
            calls.push(Call { prompts, fields: fields() });
        }
        Ok((groups, calls))
    }

    fn asked(&mut self, pair: &Continuation) -> Result<Asked, Error> {
        let text = || format!("{:?}", excerpt(&pair.text, 60));
        let whole = format!("{}{}", pair.context, pair.text);
        let Some(vocabulary) = &self.vocabulary else {
            if pair.context.is_empty() {
                return Err(Error::EmptyContext { text: text() });
            }
            return Ok(Asked { prompt: Prompt::Text(whole), part: None });
        };
        let mut ids = vocabulary.encode(&whole)?;
        let mut context = vocabulary.encode(&pair.context)?.len();
        if pair.context.is_empty() && context == 0 {
            let first = vocabulary.first().ok_or_else(|| Error::EmptyContext { text: text() })?;
            // A server that takes text alone cannot be given this token, and is seen to count one less.
            ids.insert(0, first);
            context = 1;
        }
        if ids.len() <= context {
            return Err(Error::EmptyContinuation { text: text(), tokens: ids.len() });
        }
        if self.form == Some(Form::Text) {
            let part = Part { context, tokens: ids.len() };
            return Ok(Asked { prompt: Prompt::Text(whole), part: Some(part) });
        }
        if let Some(most) = vocabulary.context(self.endpoint.context()) {
            // One token is generated.
            let over = (ids.len() + 1).saturating_sub(most);
            if over >= context {
                return Err(Error::NoRoom { tokens: ids.len() - context + 1, context: most });
            }
            self.prompts_cut += usize::from(over > 0);
            ids.drain(..over);
            context -= over;
        }
        let part = Part { context, tokens: ids.len() };
        Ok(Asked { prompt: Prompt::Ids(ids), part: Some(part) })
    }
}

/// The fields of a call beside the prompts.
fn fields() -> Value {
    json!({"max_tokens": 1, "echo": true, "logprobs": 1})
}

impl Group {
    /// Whether the answers have an entry for each token of their prompts, as far as the server says what these are.
    fn check_tokens(&self, endpoint: &Endpoint, answers: &Answers) -> Result<(), Error> {
        let mut total = 0;
        for (choice, prompt) in answers.choices.iter().zip(&self.prompts) {
            total += prompt_tokens(endpoint, choice)? as u64;
            if let Prompt::Text(text) = prompt {
                alignment::check(choice, text).map_err(|problem| endpoint.wrong(problem))?;
            }
        }
        // Where the tokenizer counts, a text of another length is named by its own error.
        let is_counted = self.parts.iter().all(Option::is_none);
        match answers.prompt_tokens {
            Some(said) if said != total && is_counted => {
                Err(endpoint.wrong(AnswerProblem::Usage { found: total, said }))
            }
            _ => Ok(()),
        }
    }

    /// The scores of the group's requests.
    fn scores(&self, endpoint: &Endpoint, answers: &Answers) -> Result<Vec<LogLikelihood>, Error> {
        self.check_tokens(endpoint, answers)?;
        let counted = answers.choices.len() - self.places.len();
        let context = match answers.choices.get(..counted) {
            Some([context]) => prompt_tokens(endpoint, context)?,
            _ => 0,
        };
        let scored = answers.choices[counted..].iter().zip(&self.parts).zip(&self.shown);
        scored
            .map(|((choice, part), shown)| {
                let found = prompt_tokens(endpoint, choice)?;
                let part = match *part {
                    None => Part { context, tokens: found },
                    Some(part) if part.tokens == found => part,
                    Some(Part { tokens, .. }) => {
                        let (url, text) = (endpoint.url().to_owned(), shown.clone());
                        return Err(Error::TokenCount { url, server: found, client: tokens, text });
                    }
                };
                if part.context >= part.tokens {
                    return Err(Error::EmptyContinuation {
                        text: shown.clone(),
                        tokens: part.tokens,
                    });
                }
                sum_of(choice, part).map_err(|problem| endpoint.wrong(problem))
            })
            .collect()
    }
}

impl ContinuationScorer for EndpointScorer<'_> {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        self.score_noting(requests, &mut |_, _| Ok(()))
    }

    fn pass_over(&mut self, requests: &[Continuation]) -> Result<(), BoxError> {
        self.probe()?;
        let mut each = requests.iter();
        Ok(each.try_for_each(|pair| self.asked(&pair.with_spaces_moved()).map(drop))?)
    }

    fn score_noting(
        &mut self,
        requests: &[Continuation],
        note: &mut dyn FnMut(usize, LogLikelihood) -> Result<(), BoxError>,
    ) -> Result<Vec<LogLikelihood>, BoxError> {
        Ok(self.scores(requests, note)?)
    }
}
