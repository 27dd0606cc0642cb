//! A word problem with its worked answer, in GSM8K's form.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A question and its worked answer: sentences with `<<a+b=c>>` annotations, then `#### n`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The word problem.
    pub question: String,
    /// The worked answer; its last line is `#### n`.
    pub answer: String,
}

impl Problem {
    /// The text that a model is to continue.
    pub fn prompt(&self) -> String {
        format!("Question: {}\nAnswer:", self.question)
    }

    /// What follows the prompt.
    pub fn completion(&self) -> String {
        format!(" {}", self.answer)
    }

    /// Prompt and answer together, as documents hold them.
    pub fn text(&self) -> String {
        self.prompt() + &self.completion()
    }

    /// The number after `####`.
    pub fn result(&self) -> Option<&str> {
        final_number(&self.answer)
    }
}

/// The number after the first `####` of a worked answer.
pub fn final_number(answer: &str) -> Option<&str> {
    let after = answer.split_once("####")?.1.trim_start();
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    (end > 0).then(|| &after[..end])
}

/// One calculation; prints as `5+3=<<5+3=8>>8`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calculation {
    left: u32,
    sign: char,
    right: u32,
    pub(crate) value: u32,
}

pub(crate) fn plus(left: u32, right: u32) -> Calculation {
    Calculation { left, sign: '+', right, value: left + right }
}

pub(crate) fn minus(left: u32, right: u32) -> Calculation {
    assert!(left >= right, "{left}-{right} is negative");
    Calculation { left, sign: '-', right, value: left - right }
}

pub(crate) fn times(left: u32, right: u32) -> Calculation {
    Calculation { left, sign: '*', right, value: left * right }
}

pub(crate) fn over(left: u32, right: u32) -> Calculation {
    assert!(left.is_multiple_of(right), "{left}/{right} is not a whole number");
    Calculation { left, sign: '/', right, value: left / right }
}

impl fmt::Display for Calculation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { left, sign, right, value } = self;
        write!(f, "{left}{sign}{right}=<<{left}{sign}{right}={value}>>{value}")
    }
}

/// Puts a question and the sentences of its working together.
pub(crate) fn worked(question: String, sentences: &[String], result: Calculation) -> Problem {
    Problem { question, answer: format!("{}\n#### {}", sentences.join("\n"), result.value) }
}
