//! Question and answer pairs.

use serde::{Deserialize, Serialize};

/// One item of a data set, as a line of GSM8K's `test.jsonl` is one. In GSM8K the answer is the whole worked solution, ending `#### 18`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Document {
    /// The question.
    pub question: String,
    /// The reference answer, worked steps included.
    pub answer: String,
}

impl Document {
    /// A document of a question and its reference answer.
    pub fn new(question: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { question: question.into(), answer: answer.into() }
    }
}
