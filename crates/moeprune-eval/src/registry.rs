//! Tasks by the names people type.

use crate::{Document, Error, Gsm8k, Task};

/// The names [`task_by_name`] knows.
pub const TASK_NAMES: [&str; 5] =
    ["gsm8k", "gsm8k_zeroshot", "gsm8k_cot", "gsm8k_cot_zeroshot", "gsm8k_cot_llama"];

/// The task of a name, with `fewshot` shots or, without it, as many as it is defined with.
///
/// Training documents are where shots are drawn from, in any number up to theirs, and take the
/// place of fixed ones: [`Gsm8k::with_drawn_shots`] says how. Without them a chain-of-thought task
/// has at most its eight fixed shots, a zero-shot task has none, and `gsm8k` needs them.
///
/// | | shots, by default | without training documents | with them |
/// |---|---|---|---|
/// | `gsm8k` | 5 | 0 | drawn |
/// | `gsm8k_zeroshot` | 0 | 0 | drawn, if `fewshot` is given |
/// | `gsm8k_cot` | 8 | 0 to 8, fixed | drawn |
/// | `gsm8k_cot_zeroshot` | 0 | 0 | drawn, if `fewshot` is given |
/// | `gsm8k_cot_llama` | 8 | 0 to 8, fixed | drawn |
///
/// ```
/// # use moeprune_eval::{Document, task_by_name};
/// assert_eq!(task_by_name("gsm8k_cot", None, &[])?.fewshot(), 8);
/// assert_eq!(task_by_name("gsm8k_cot", Some(4), &[])?.fewshot(), 4);
///
/// let train = vec![Document::new("2 + 3?", "2 + 3 = <<2+3=5>>5\n#### 5"); 20];
/// assert_eq!(task_by_name("gsm8k_cot", Some(10), &train)?.fewshot(), 10);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
///
/// # Errors
///
/// If there is no task of that name (the error lists them); if it cannot have that many shots, for
/// want of training documents; or if training documents are given to a task that has no shots by
/// default and `fewshot` does not ask for any. With `Some(0)` they are ignored.
pub fn task_by_name(
    name: &str,
    fewshot: Option<usize>,
    train: &[Document],
) -> Result<Box<dyn Task>, Error> {
    type Untrained = fn(usize) -> Result<Gsm8k, Error>;
    let (default, untrained): (usize, Untrained) = match name {
        "gsm8k" => (Gsm8k::FEWSHOT, |shots| Gsm8k::new(vec![], shots)),
        "gsm8k_zeroshot" => (0, |shots| without_shots(Gsm8k::zero_shot(), shots)),
        "gsm8k_cot" => (Gsm8k::CHAIN_OF_THOUGHT_FEWSHOT, Gsm8k::chain_of_thought),
        "gsm8k_cot_zeroshot" => {
            (0, |shots| without_shots(Gsm8k::chain_of_thought_zero_shot(), shots))
        }
        "gsm8k_cot_llama" => (Gsm8k::CHAIN_OF_THOUGHT_FEWSHOT, Gsm8k::chain_of_thought_llama),
        _ => {
            let known = TASK_NAMES.join(", ");
            return Err(Error::UnknownTask { name: name.to_owned(), known });
        }
    };
    let shots = fewshot.unwrap_or(default);
    if train.is_empty() {
        return Ok(Box::new(untrained(shots)?));
    }
    if shots == 0 && fewshot.is_none() {
        return Err(Error::UnusedTrainingDocuments { task: name.to_owned() });
    }
    Ok(Box::new(untrained(0)?.with_drawn_shots(train.to_vec(), shots)?))
}

fn without_shots(task: Gsm8k, shots: usize) -> Result<Gsm8k, Error> {
    if shots > 0 {
        return Err(Error::ZeroShot { task: task.name().to_owned(), shots });
    }
    Ok(task)
}
