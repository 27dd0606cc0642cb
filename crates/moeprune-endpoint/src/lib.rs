//! Asks a serving engine instead of running a model: answers and log-likelihoods over the completions API that OpenAI
//! had first and that vLLM, SGLang, llama.cpp and others serve (`POST /v1/completions`).
//!
//! [`Endpoint::connect`] finds the server and the model's name. [`EndpointGenerator`] is a
//! [`Generator`](moeprune_eval::Generator) over it, [`EndpointScorer`] a
//! [`ContinuationScorer`](moeprune_eval::ContinuationScorer). [`Journaled`] keeps what either answers in a file, so that an
//! evaluation that was interrupted asks only what is missing; it does so for any generator or scorer.
//!
//! # What is sent
//!
//! Answers: `{model, prompt, max_tokens, temperature: 0, seed, stop}`, one prompt per call, several calls at a time.
//! Scores: `{model, prompt, max_tokens: 1, temperature: 0, seed, echo: true, logprobs: 1}`, all choices after one context
//! per call. Of the log-probabilities that come back the first is null and the last that of the new token; those between
//! are summed from the context's end.
//!
//! # What is not trusted
//!
//! A server may be slow, overloaded or restarted meanwhile: 429, 500, 502, 503, 504, cut connections and timeouts are asked
//! again, after the wait that the server names or one that doubles. It may also answer 200 and mean something else: a
//! body that is not JSON, too few choices, null in place of a number, or the log-probabilities of the answer in place of
//! those of the prompt are errors with a name. Nothing that is missing is scored.
//!
//! # Plain http
//!
//! The default build speaks http only. The feature `https` adds TLS with rustls, and with it C.

mod address;
mod answer;
mod connection;
mod endpoint;
mod error;
mod excerpt;
mod generator;
mod journal;
mod journaled;
mod options;
mod pool;
mod scorer;
mod secret;
mod vocabulary;

pub use answer::AnswerProblem;
pub use endpoint::Endpoint;
pub use error::Error;
pub use generator::EndpointGenerator;
pub use journal::{Journal, JournalError, RunKey};
pub use journaled::Journaled;
pub use options::EndpointOptions;
pub use scorer::EndpointScorer;
pub use vocabulary::Vocabulary;
