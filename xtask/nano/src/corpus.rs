//! The splits: fixed sets that training never sees, and an endless stream for training.

use crate::draw::Draw;
use crate::problem::Problem;
use crate::story::{Kind, tell, tell_with_kind};
use std::collections::HashMap;

/// Problems of the test set.
pub const TEST: usize = 500;
/// Problems of the calibration documents.
pub const CALIBRATION: usize = 2400;
/// Problems of the held-out text.
pub const HELD_OUT: usize = 300;

/// Problems joined into one calibration document: more than 600 tokens.
pub const DOCUMENT: usize = 12;

/// The sets that training leaves out; no question is in two of them.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// For accuracy.
    pub test: Vec<Problem>,
    /// For the statistics that pruning methods collect.
    pub calibration: Vec<Problem>,
    /// For perplexity.
    pub held_out: Vec<Problem>,
    /// Questions of these sets.
    reserved: HashMap<String, Kind>,
    seed: u64,
}

impl Corpus {
    /// The sets of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut reserved = HashMap::new();
        // Seeds far apart: streams of one generator do not overlap.
        let mut set = |purpose: u64, count: usize| {
            let mut draw = Draw::new(stream(seed, purpose));
            let mut problems = Vec::with_capacity(count);
            while problems.len() < count {
                let (kind, problem) = tell_with_kind(&mut draw);
                if !reserved.contains_key(&problem.question) {
                    reserved.insert(problem.question.clone(), kind);
                    problems.push(problem);
                }
            }
            problems
        };
        Self {
            test: set(1, TEST),
            calibration: set(2, CALIBRATION),
            held_out: set(3, HELD_OUT),
            reserved,
            seed,
        }
    }

    /// Problems to train on, without end; none asks a question of the sets.
    pub fn training(&self) -> impl Iterator<Item = Problem> + Send + '_ {
        let mut draw = Draw::new(stream(self.seed, 0));
        std::iter::repeat_with(move || tell(&mut draw))
            .filter(|problem| !self.reserved.contains_key(&problem.question))
    }

    /// Those of `problems`, which are of these sets, that have this kind.
    pub fn of_kind(&self, problems: &[Problem], kind: Kind) -> Vec<Problem> {
        let of_kind = |p: &&Problem| self.reserved.get(&p.question) == Some(&kind);
        problems.iter().filter(of_kind).cloned().collect()
    }

    /// The calibration problems as documents of [`DOCUMENT`] problems.
    pub fn calibration_documents(&self) -> impl Iterator<Item = String> + '_ {
        self.calibration.chunks(DOCUMENT).map(document)
    }

    /// The held-out problems as one text.
    pub fn held_out_text(&self) -> String {
        document(&self.held_out) + "\n"
    }
}

/// Problems one after the other, with a blank line between two.
pub fn document(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(Problem::text).collect();
    texts.join("\n\n")
}

fn stream(seed: u64, purpose: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose
}
