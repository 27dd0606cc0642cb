//! Everything that can go wrong between here and a server, each with what to do about it.

use crate::AnswerProblem;

/// Why a server could not be asked, or why its answer is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is none that can be asked.
    #[error("the endpoint {url}: {problem}; expected for example http://localhost:8000/v1")]
    Url {
        /// What was given, without a password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An https URL, and no TLS in this build.
    #[error(
        "the endpoint {url} wants TLS, which this build does not have: build moeprune with --features https, or reach \
         the server over http (an ssh tunnel, for example)"
    )]
    Https {
        /// What was given.
        url: String,
    },
    /// The key is not one that can be sent.
    #[error(
        "the key in OPENAI_API_KEY has characters that no header may have: it is not shown here; set it again"
    )]
    Key,
    /// Nothing answers there, or not in time, or the connection was cut.
    #[error("{url}: {problem}{advice}")]
    Transport {
        /// What was called.
        url: String,
        /// What happened.
        problem: String,
        /// What to do.
        advice: &'static str,
        /// Whether something took the connection.
        is_there: bool,
    },
    /// The server refused.
    #[error("{url} answers {status}{}{advice}", quoted(said))]
    Status {
        /// What was called.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says, shortened.
        said: String,
        /// What to do.
        advice: String,
    },
    /// The server wants a longer wait than a run should make.
    #[error(
        "{url} answers {status} and asks to wait {seconds} s: run again then; what has been answered is in the journal, \
         if there is one"
    )]
    LongWait {
        /// What was called.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The wait asked for.
        seconds: u64,
    },
    /// Every attempt failed for a reason that passes.
    #[error("gave up after {attempts} attempts: {last}")]
    GaveUp {
        /// How often the same was asked.
        attempts: u32,
        /// What the last attempt ended with.
        last: Box<Self>,
    },
    /// The body is longer than any answer.
    #[error("{url} sends more than {limit} bytes, which no answer has; is it a completions API?")]
    TooLong {
        /// What was called.
        url: String,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The body is not what the API says.
    #[error("{url}: {problem}")]
    Answer {
        /// What was called.
        url: String,
        /// What is wrong with it.
        problem: AnswerProblem,
    },
    /// The server serves several models.
    #[error("{url} serves several models, choose one with --endpoint-model: {names}")]
    ManyModels {
        /// The base URL.
        url: String,
        /// Their names.
        names: String,
    },
    /// The server has no such model.
    #[error("{url} serves no model `{name}`; it serves {names}")]
    UnknownModel {
        /// The base URL.
        url: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        names: String,
    },
    /// The server names no model.
    #[error("{url} names no model: pass its name with --endpoint-model")]
    NoModel {
        /// The base URL.
        url: String,
    },
    /// The server does not say how likely a prompt's tokens are.
    #[error(
        "{url} does not say how likely a prompt's tokens are ({found}), so no choice can be scored there: vLLM and \
         SGLang do; llama.cpp's server and `transformers serve` accept `echo` and leave it out. Tasks whose answers are \
         written (gsm8k and its like) can be asked there"
    )]
    NoPromptLogProbabilities {
        /// The base URL.
        url: String,
        /// What was seen instead.
        found: String,
    },
    /// Server and tokenizer disagree about how many tokens a text has.
    #[error(
        "{url} makes {server} tokens of a text of which the model's tokenizer makes {client} ({text}): another tokenizer, \
         or another beginning-of-text token; leave MODEL out to have the server count, or serve that model"
    )]
    TokenCount {
        /// The base URL.
        url: String,
        /// The server's number.
        server: usize,
        /// The tokenizer's number.
        client: usize,
        /// The text, shortened.
        text: String,
    },
    /// A continuation without a token of its own.
    #[error(
        "the choice {text} has no token of its own after its context (the text has {tokens} tokens with and without it)"
    )]
    EmptyContinuation {
        /// The continuation, shortened.
        text: String,
        /// How many tokens context and continuation have.
        tokens: usize,
    },
    /// A continuation that nothing precedes.
    #[error(
        "the choice {text} has no context, and which token begins a text is not known: pass MODEL for its tokenizer"
    )]
    EmptyContext {
        /// The continuation, shortened.
        text: String,
    },
    /// More new tokens than the model's context.
    #[error(
        "{tokens} tokens are needed beside the prompt, but the server takes only {context} in all"
    )]
    NoRoom {
        /// Tokens beside the prompt.
        tokens: usize,
        /// Tokens that the server takes.
        context: usize,
    },
    /// The tokenizer failed.
    #[error("the tokenizer could not read {text}")]
    Tokenizer {
        /// The text, shortened.
        text: String,
        /// Its reason.
        source: moeprune_eval::BoxError,
    },
    /// Threads ended without an answer.
    #[error("{missing} answers were lost in this program: that is a defect of it")]
    Lost {
        /// How many answers are missing.
        missing: usize,
    },
    /// The caller could not keep an answer.
    #[error("an answer could not be kept")]
    Keep(#[source] moeprune_eval::BoxError),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// Whether the run was asked to stop: it is no failure then.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    /// Whether no server is there yet, or one that is still starting.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Status { status: 502..=504, .. } => true,
            Self::GaveUp { last, .. } => last.is_not_there(),
            _ => false,
        }
    }

    /// Whether the same call may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529)
            }
            Self::Answer { problem, .. } => {
                matches!(problem, AnswerProblem::EndsEarly { .. } | AnswerProblem::Aborted { .. })
            }
            _ => false,
        }
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
