//! What tells one GSM8K task from another, as data.

use super::reworded::reworded;
use crate::{Pick, RegexFilter, whitespace::strip};

/// The wording of a task, what ends an answer, and how one is read and judged.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) name: &'static str,
    /// The text before the question.
    before: &'static str,
    /// The text after it.
    after: &'static str,
    /// What parts a shot's prompt from its solution.
    delimiter: &'static str,
    /// The words before and after a shot's answer.
    pub(super) conclusion: (&'static str, &'static str),
    drawn: Drawn,
    stop: &'static [&'static str],
    strict_match: (&'static str, Pick),
    gold: Gold,
}

/// How the solution of a training document becomes a shot's.
#[derive(Debug)]
enum Drawn {
    /// As it stands, which is the harness's way.
    Verbatim,
    /// In the words of the fixed shots: this crate's way, for tasks the harness draws none for.
    Reworded,
}

/// What a prediction is compared with.
#[derive(Debug)]
enum Gold {
    /// The whole reference answer, of which normalisation leaves the number.
    WholeAnswer,
    /// The text after the last `####`.
    FinalAnswer,
}

pub(super) static GSM8K: Form = GSM8K_FORM;

pub(super) static GSM8K_ZEROSHOT: Form = Form { name: "gsm8k_zeroshot", ..GSM8K_FORM };

pub(super) static COT: Form = COT_FORM;

pub(super) static COT_ZEROSHOT: Form = Form {
    name: "gsm8k_cot_zeroshot",
    after: "\nA: Let's think step by step.",
    gold: Gold::WholeAnswer,
    ..COT_FORM
};

pub(super) static COT_LLAMA: Form = Form {
    name: "gsm8k_cot_llama",
    before: "Given the following problem, reason and give a final answer to the problem.\nProblem: ",
    after: "\nYour response should end with \"The final answer is [answer]\" where [answer] is the \
            response to the problem.\n",
    delimiter: "",
    conclusion: (" The final answer is ", ""),
    drawn: Drawn::Reworded,
    stop: &["<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "Q:", "</s>", "<|im_end|>"],
    strict_match: (r"The final answer is ((-?[$0-9.,]{2,})|(-?[0-9]+))", Pick::Last),
    gold: Gold::FinalAnswer,
};

const GSM8K_FORM: Form = Form {
    name: "gsm8k",
    before: "Question: ",
    after: "\nAnswer:",
    delimiter: " ",
    conclusion: ("\n#### ", ""),
    drawn: Drawn::Verbatim,
    stop: &["Question:", "</s>", "<|im_end|>"],
    strict_match: (r"#### (\-?[0-9\.\,]+)", Pick::First),
    gold: Gold::WholeAnswer,
};

const COT_FORM: Form = Form {
    name: "gsm8k_cot",
    before: "Q: ",
    after: "\nA:",
    delimiter: " ",
    conclusion: (" The answer is ", "."),
    drawn: Drawn::Reworded,
    stop: &["Q:", "</s>", "<|im_end|>"],
    // The last dot is unescaped in the harness and stays so: without a full stop after it, an
    // answer loses its last digit.
    strict_match: (r"The answer is (\-?[0-9\.\,]+).", Pick::First),
    gold: Gold::FinalAnswer,
};

/// Anything that looks like an amount, at any position.
const FLEXIBLE_EXTRACT: &str = r"(-?[$0-9.,]{2,})|(-?[0-9]+)";

impl Form {
    /// The prompt for one question, without shots.
    pub(super) fn question(&self, question: &str) -> String {
        [self.before, question, self.after].concat()
    }

    /// A solved question, with what parts it from the next.
    pub(super) fn shot(&self, question: &str, solution: &str) -> String {
        [&self.question(question), self.delimiter, solution, "\n\n"].concat()
    }

    /// A training document's solution, as a shot of this form has it.
    pub(super) fn drawn_solution(&self, solution: String) -> String {
        match self.drawn {
            Drawn::Verbatim => solution,
            Drawn::Reworded => reworded(&solution, self.conclusion),
        }
    }

    pub(super) fn stop_strings(&self) -> Vec<String> {
        self.stop.iter().map(|&stop| stop.to_owned()).collect()
    }

    pub(super) fn filters(&self) -> [RegexFilter; 2] {
        let (strict, pick) = self.strict_match;
        [("strict-match", strict, pick), ("flexible-extract", FLEXIBLE_EXTRACT, Pick::Last)].map(
            |(name, pattern, pick)| {
                RegexFilter::new(name, pattern, pick).expect("the patterns are constants")
            },
        )
    }

    /// The part of a reference answer that predictions are compared with.
    pub(super) fn gold<'a>(&self, answer: &'a str) -> &'a str {
        match self.gold {
            Gold::WholeAnswer => answer,
            Gold::FinalAnswer => strip(answer.rsplit("####").next().unwrap_or(answer)),
        }
    }
}
