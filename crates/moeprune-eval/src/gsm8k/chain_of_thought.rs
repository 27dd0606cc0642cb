//! The eight solved examples of the chain-of-thought tasks.

use serde::Deserialize;

/// One solved example.
#[derive(Deserialize)]
pub(super) struct ChainOfThought {
    pub(super) question: String,
    reasoning: String,
    answer: String,
}

pub(super) const COUNT: usize = 8;

/// The examples, in their order. The file names their source and licence.
pub(super) fn shots() -> [ChainOfThought; COUNT] {
    #[derive(Deserialize)]
    struct File {
        shots: [ChainOfThought; COUNT],
    }
    let text = include_str!("../../data/chain_of_thought.json");
    let file: File = serde_json::from_str(text).expect("the file is part of the crate");
    file.shots
}

impl ChainOfThought {
    /// The reasoning and the answer, with a task's words around the answer.
    pub(super) fn solution(&self, (before, after): (&str, &str)) -> String {
        [&self.reasoning, before, &self.answer, after].concat()
    }
}
