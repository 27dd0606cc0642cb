//! Batches of training sequences: problems alone, or documents of several.

use crate::corpus::document;
use crate::draw::Draw;
use crate::model::Sequences;
use crate::problem::Problem;
use crate::tokenizer::Tokenizer;
use anyhow::Result;

/// One batch in this many is of documents. They teach the model what pruning methods and
/// perplexity feed it: long sequences, with questions to predict too.
const DOCUMENTS: u32 = 8;

/// Sequences with what to predict in them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The sequences.
    pub sequences: Sequences,
    /// Positions whose next token is predicted.
    pub positions: Vec<u32>,
    /// Those next tokens.
    pub targets: Vec<u32>,
}

impl Batch {
    fn new() -> Self {
        Self { sequences: Sequences::new(), positions: Vec::new(), targets: Vec::new() }
    }

    /// Adds a sequence of which the tokens from `from` on are predicted.
    fn push(&mut self, tokens: &[u32], from: usize) {
        let start = self.sequences.tokens.len();
        for (at, &token) in tokens.iter().enumerate().skip(from) {
            self.positions.push((start + at - 1) as u32);
            self.targets.push(token);
        }
        self.sequences.push(tokens);
    }
}

/// The tokens of a problem on its own, and how many of them are prompt.
pub fn sequence(tokenizer: &Tokenizer, problem: &Problem) -> Result<(Vec<u32>, usize)> {
    let mut tokens = vec![tokenizer.bos];
    tokens.extend(tokenizer.encode(&problem.prompt())?);
    let prompt = tokens.len();
    tokens.extend(tokenizer.encode(&problem.completion())?);
    tokens.push(tokenizer.eos);
    Ok((tokens, prompt))
}

/// The next batch of about `size` tokens.
pub fn next(
    problems: &mut impl Iterator<Item = Problem>,
    tokenizer: &Tokenizer,
    size: usize,
    longest: usize,
    draw: &mut Draw,
) -> Result<Batch> {
    let mut batch = Batch::new();
    if draw.one_in(DOCUMENTS) {
        // Mostly as long as a calibration block; sometimes as long as the model goes.
        let length = if draw.one_in(4) { longest } else { longest / 2 };
        while batch.sequences.tokens.len() + length / 2 < size {
            let texts: Vec<Problem> = problems.take(length / 40).collect();
            let mut tokens = vec![tokenizer.bos];
            tokens.extend(tokenizer.encode(&document(&texts))?);
            tokens.truncate(length);
            batch.push(&tokens, 1);
        }
        return Ok(batch);
    }
    while batch.sequences.tokens.len() < size {
        let Some(problem) = problems.next() else {
            break;
        };
        let (mut tokens, prompt) = sequence(tokenizer, &problem)?;
        tokens.truncate(longest);
        batch.push(&tokens, prompt);
    }
    Ok(batch)
}
