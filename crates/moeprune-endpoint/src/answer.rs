//! What comes back from `/v1/completions`, read with suspicion.

use moeprune_eval::Ending;
use serde_json::Value;

use crate::excerpt::excerpt;

/// What is wrong with an answer's body.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerProblem {
    /// Not JSON at all.
    #[error("the answer is not JSON ({reason}): {start}; is it a completions API?")]
    NotJson {
        /// The parser's reason.
        reason: String,
        /// The beginning of the body.
        start: String,
    },
    /// A number that JSON does not have, as Python writes it.
    #[error(
        "the answer has NaN or Infinity in place of a number: the model computes none there, or overflows"
    )]
    NotANumber,
    /// The body ends within a value.
    #[error("the answer ends early, after {bytes} bytes")]
    EndsEarly {
        /// How much there is.
        bytes: usize,
    },
    /// A key that must be there is missing, or is of another type.
    #[error("the answer has no {what}: {start}")]
    Missing {
        /// What is expected.
        what: &'static str,
        /// The beginning of the body.
        start: String,
    },
    /// Not one choice per prompt.
    #[error("the answer has {found} choices for {prompts}")]
    ChoiceCount {
        /// The number of choices.
        found: usize,
        /// The number of prompts, in words.
        prompts: String,
    },
    /// An index that is out of range or comes twice.
    #[error(
        "the answer's choices are numbered {indices}: expected each number from 0 to {last} once"
    )]
    Indices {
        /// The numbers found.
        indices: String,
        /// The last that is expected.
        last: usize,
    },
    /// The server gave an answer up: it may write it whole a moment later.
    #[error("the answer was given up by the server (`finish_reason` is {reason})")]
    Aborted {
        /// What it says.
        reason: String,
    },
    /// An answer that ended in another way than by itself or at its length.
    #[error(
        "the answer ended with `finish_reason` {reason}, so it is not the model's alone: expected \"stop\" or \"length\""
    )]
    Finish {
        /// What it says.
        reason: String,
    },
    /// Lists that must be of one length are not.
    #[error(
        "choice {choice} has {tokens} log-probabilities and {top} lists of the likeliest tokens: expected as many"
    )]
    Lengths {
        /// The choice.
        choice: usize,
        /// Length of `token_logprobs`.
        tokens: usize,
        /// Length of `top_logprobs`.
        top: usize,
    },
    /// Another list is not as long as that of the log-probabilities.
    #[error(
        "choice {choice} has {expected} log-probabilities and {found} entries in `{list}`: expected as many"
    )]
    Entries {
        /// The choice.
        choice: usize,
        /// The list.
        list: &'static str,
        /// Its length.
        found: usize,
        /// Length of `token_logprobs`.
        expected: usize,
    },
    /// The first token follows nothing, so that nothing says how likely it is.
    #[error(
        "the log-probability of a text's first token is {value}: expected null, for nothing precedes it"
    )]
    First {
        /// What is there.
        value: String,
    },
    /// The prompts have another number of tokens than the server counted.
    #[error(
        "the answer has log-probabilities of {found} tokens of the prompts, and its `usage` counts {said}"
    )]
    Usage {
        /// Tokens that have an entry.
        found: u64,
        /// `prompt_tokens`.
        said: u64,
    },
    /// The last entry is not that of a token after the prompt.
    #[error(
        "the answer's tokens end within the text that was sent: expected one new token after it"
    )]
    NoNewToken,
    /// More new tokens than one.
    #[error("the answer has {new} tokens after the text that was sent: expected one")]
    ManyNewTokens {
        /// How many.
        new: usize,
    },
    /// Tokens that begin as the text does and go on in another way.
    #[error("the answer's tokens are not those of the text that was sent: some are missing")]
    OtherTokens,
    /// A log-probability that must be there is null.
    #[error("the log-probability of token {token} of {tokens} is null")]
    Null {
        /// The token, counted from 1.
        token: usize,
        /// How many there are.
        tokens: usize,
    },
    /// A log-probability above 0.
    #[error("the log-probability of token {token} of {tokens} is {value}, above 0")]
    AboveZero {
        /// The token, counted from 1.
        token: usize,
        /// How many there are.
        tokens: usize,
        /// The value, as it is printed.
        value: String,
    },
    /// Without the likeliest tokens it is not known whether a choice would be written.
    #[error("the likeliest token in place of token {token} of {tokens} is not in the answer")]
    NoLikeliest {
        /// The token, counted from 1.
        token: usize,
        /// How many there are.
        tokens: usize,
    },
    /// Not as many log-probabilities as tokens.
    #[error(
        "the answer has {found} log-probabilities for a text of {expected} tokens and one new token"
    )]
    TokenCount {
        /// How many there are.
        found: usize,
        /// Tokens of the prompt.
        expected: usize,
    },
}

/// One prompt's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) log_probabilities: LogProbabilities,
    finish: Finish,
}

/// What a server says of an answer's end: `finish_reason`, and vLLM's and SGLang's `stop_reason` or `matched_stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Finish {
    reason: Option<Reason>,
    /// Whether a stop string was what ended it, where that is said.
    by_string: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    Stop,
    Length,
}

impl Finish {
    fn of(choice: &Value) -> Result<Self, AnswerProblem> {
        let said = choice.get("finish_reason").filter(|said| !said.is_null());
        let shown = || excerpt(&said.map(Value::to_string).unwrap_or_default(), 60);
        let reason = match said.map(Value::as_str) {
            None => None,
            Some(Some("stop")) => Some(Reason::Stop),
            Some(Some("length")) => Some(Reason::Length),
            Some(Some("abort" | "error")) => {
                return Err(AnswerProblem::Aborted { reason: shown() });
            }
            Some(_) => return Err(AnswerProblem::Finish { reason: shown() }),
        };
        // A string that ended it; of a token its id, or null for the model's own.
        let by = choice.get("stop_reason").or_else(|| choice.get("matched_stop"));
        Ok(Self { reason, by_string: by.map(Value::is_string) })
    }
}

impl Choice {
    /// One without a text, for tests of what is made of log-probabilities.
    #[cfg(test)]
    pub(crate) fn of_tokens(values: Vec<Option<f64>>, largest: Vec<Option<f64>>) -> Self {
        let log_probabilities =
            LogProbabilities::Tokens { values, largest, tokens: None, offsets: None };
        Self { text: String::new(), log_probabilities, finish: Finish::default() }
    }

    /// How it ended, if the server says. One that does not tell a stop string from the end of the text is taken to mean
    /// the former where there were any.
    pub(crate) fn ended(&self, has_stops: bool) -> Option<Ending> {
        Some(match (self.finish.reason?, self.finish.by_string.unwrap_or(has_stops)) {
            (Reason::Length, _) => Ending::Length,
            (Reason::Stop, true) => Ending::Stop,
            (Reason::Stop, false) => Ending::EndOfText,
        })
    }
}

/// What a choice says of its tokens' log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogProbabilities {
    /// No key, or null.
    None,
    /// Another form, such as that of chats, described.
    Other(&'static str),
    /// `token_logprobs`, in nats, and the largest value of each token's `top_logprobs`; each as long as the other.
    Tokens {
        values: Vec<Option<f64>>,
        largest: Vec<Option<f64>>,
        /// The tokens' own texts, if all are there.
        tokens: Option<Vec<String>>,
        /// Where each begins in the text, if all are there.
        offsets: Option<Vec<u64>>,
    },
}

/// The answers to some prompts, in their order, and how many tokens the prompts had together if the server says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answers {
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt_tokens: Option<u64>,
}

/// A body as JSON.
pub(crate) fn json(body: &[u8]) -> Result<Value, AnswerProblem> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            return AnswerProblem::EndsEarly { bytes: body.len() };
        }
        if is_before_nan(body, &error) {
            return AnswerProblem::NotANumber;
        }
        AnswerProblem::NotJson { reason: error.to_string(), start: start_of(body) }
    })
}

/// Whether what cannot be read is what Python writes for a number that is none.
fn is_before_nan(body: &[u8], error: &serde_json::Error) -> bool {
    let line = body.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1));
    let line = line.unwrap_or_default();
    let at = error.column().saturating_sub(2).min(line.len());
    let near = &line[at..line.len().min(at + 5)];
    error.column() > 1 && (near.windows(3).any(|word| word == b"NaN" || word == b"Inf"))
}

fn start_of(body: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(&body[..body.len().min(800)]), 200)
}

/// Reads the answers to so many prompts.
pub(crate) fn read(body: &[u8], prompts: usize) -> Result<Answers, AnswerProblem> {
    let json = json(body)?;
    let missing = |what| AnswerProblem::Missing { what, start: start_of(body) };
    let choices =
        json.get("choices").and_then(Value::as_array).ok_or_else(|| missing("list `choices`"))?;
    if choices.len() != prompts {
        let prompts = if prompts == 1 { "1 prompt".into() } else { format!("{prompts} prompts") };
        return Err(AnswerProblem::ChoiceCount { found: choices.len(), prompts });
    }
    let mut placed: Vec<Option<Choice>> = vec![None; prompts];
    for (choice, &place) in choices.iter().zip(&places(choices)?) {
        // First: an answer that was given up may lack the rest.
        let finish = Finish::of(choice)?;
        let text = choice
            .get("text")
            .and_then(Value::as_str)
            .ok_or_else(|| missing("`text` in a choice"))?;
        let log_probabilities = log_probabilities(choice, place)?;
        placed[place] = Some(Choice { text: text.to_owned(), log_probabilities, finish });
    }
    let prompt_tokens = json.get("usage").and_then(|usage| usage.get("prompt_tokens")?.as_u64());
    Ok(Answers { choices: placed.into_iter().flatten().collect(), prompt_tokens })
}

/// To which prompt each choice belongs: by `index`, or as they come where none has one.
fn places(choices: &[Value]) -> Result<Vec<usize>, AnswerProblem> {
    let indices: Vec<Option<&Value>> = choices.iter().map(|choice| choice.get("index")).collect();
    if indices.iter().all(Option::is_none) {
        return Ok((0..choices.len()).collect());
    }
    let place = |index: &Option<&Value>| {
        let place = usize::try_from(index.as_ref()?.as_u64()?).ok()?;
        (place < choices.len()).then_some(place)
    };
    let places: Option<Vec<usize>> = indices.iter().map(place).collect();
    let mut seen = vec![false; choices.len()];
    let all_once = |places: &Vec<usize>| {
        places.iter().for_each(|&place| seen[place] = true);
        seen.iter().all(|&seen| seen)
    };
    places.filter(all_once).ok_or_else(|| {
        let shown: Vec<String> = indices
            .iter()
            .take(8)
            .map(|index| {
                index.map_or_else(|| "not at all".into(), |value| excerpt(&value.to_string(), 20))
            })
            .collect();
        AnswerProblem::Indices { indices: shown.join(", "), last: choices.len().saturating_sub(1) }
    })
}

fn log_probabilities(choice: &Value, place: usize) -> Result<LogProbabilities, AnswerProblem> {
    let logprobs = match choice.get("logprobs") {
        None | Some(Value::Null) => return Ok(LogProbabilities::None),
        Some(logprobs) => logprobs,
    };
    let Some(values) = logprobs.get("token_logprobs").and_then(Value::as_array) else {
        let is_chat = logprobs.get("content").is_some();
        let found =
            if is_chat { "the form of chats, of new tokens alone" } else { "no `token_logprobs`" };
        return Ok(LogProbabilities::Other(found));
    };
    let values: Vec<Option<f64>> = values.iter().map(Value::as_f64).collect();
    let largest = match logprobs.get("top_logprobs").and_then(Value::as_array) {
        None => vec![None; values.len()],
        Some(top) => top.iter().map(largest_of).collect(),
    };
    if largest.len() != values.len() {
        return Err(AnswerProblem::Lengths {
            choice: place,
            tokens: values.len(),
            top: largest.len(),
        });
    }
    let list = |name: &'static str| match logprobs.get(name).and_then(Value::as_array) {
        Some(list) if list.len() != values.len() => {
            let (found, expected) = (list.len(), values.len());
            Err(AnswerProblem::Entries { choice: place, list: name, found, expected })
        }
        found => Ok(found),
    };
    let tokens = list("tokens")?
        .and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
    let offsets = list("text_offset")?.and_then(|all| all.iter().map(Value::as_u64).collect());
    Ok(LogProbabilities::Tokens { values, largest, tokens, offsets })
}

/// The largest value of an object of tokens.
fn largest_of(top: &Value) -> Option<f64> {
    top.as_object()?.values().filter_map(Value::as_f64).reduce(f64::max)
}

#[cfg(test)]
mod tests;
