//! Accuracy: greedy answers, matched on the number after `####`.

use crate::batch::sequence;
use crate::model::{Model, Sequences};
use crate::problem::{Problem, final_number};
use crate::tokenizer::Tokenizer;
use anyhow::{Result, ensure};

/// Tokens an answer may have.
pub const LONGEST: usize = 160;

/// Sequences run at a time.
const TOGETHER: usize = 64;

/// The share of `problems` whose greedy answer has the right number.
pub fn accuracy(model: &Model, tokenizer: &Tokenizer, problems: &[Problem]) -> Result<f64> {
    let mut right = 0;
    for chunk in problems.chunks(TOGETHER) {
        let answers = answers(model, tokenizer, chunk)?;
        let pairs = answers.iter().zip(chunk);
        right += pairs.filter(|(answer, problem)| final_number(answer) == problem.result()).count();
    }
    Ok(right as f64 / problems.len() as f64)
}

/// The greedy answer to each problem.
///
/// Instead of one token at a time, a whole draft is checked at once: where the model would have
/// written another token, that one replaces the draft's, and the draft is checked again from there.
/// The outcome is exactly the greedy one, with any draft; with the worked answer as the first
/// draft it takes few passes.
pub fn answers(model: &Model, tokenizer: &Tokenizer, problems: &[Problem]) -> Result<Vec<String>> {
    let positions = model.config.positions;
    let mut drafts = Vec::with_capacity(problems.len());
    for problem in problems {
        let (mut tokens, prompt) = sequence(tokenizer, problem)?;
        ensure!(prompt < positions, "a question leaves no room for an answer");
        tokens.truncate(positions);
        drafts.push(Draft { tokens, prompt, sure: prompt, done: false });
    }
    while drafts.iter().any(|draft| !draft.done) {
        let mut sequences = Sequences::new();
        let mut asked = Vec::new();
        for draft in drafts.iter().filter(|draft| !draft.done) {
            let start = sequences.tokens.len();
            asked.extend((draft.sure - 1..draft.tokens.len()).map(|at| (start + at) as u32));
            sequences.push(&draft.tokens);
        }
        let output = model.forward(&sequences)?;
        let likeliest = model.likeliest(&output, &asked)?;
        let mut rest = likeliest.as_slice();
        for draft in drafts.iter_mut().filter(|draft| !draft.done) {
            let (own, after) = rest.split_at(draft.tokens.len() + 1 - draft.sure);
            rest = after;
            draft.check(own, tokenizer.eos, positions);
        }
    }
    drafts.iter().map(|draft| tokenizer.decode(&draft.tokens[draft.prompt..draft.sure])).collect()
}

struct Draft {
    tokens: Vec<u32>,
    prompt: usize,
    /// So many tokens are the model's own.
    sure: usize,
    done: bool,
}

impl Draft {
    /// Takes what the model would write at each place from `sure` on, and one after the end.
    fn check(&mut self, likeliest: &[u32], eos: u32, positions: usize) {
        for &token in likeliest {
            let agreed = self.tokens.get(self.sure) == Some(&token);
            if agreed {
                self.sure += 1;
            } else if self.sure < self.tokens.len() {
                self.tokens[self.sure] = token;
                self.sure += 1;
            } else {
                self.tokens.push(token);
                self.sure += 1;
            }
            let answered = self.sure - self.prompt;
            if token == eos || answered == LONGEST || self.sure == positions {
                self.done = true;
                return;
            }
            if !agreed {
                return;
            }
        }
    }
}
