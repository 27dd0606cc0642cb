//! Tasks by the names people type.

use crate::{Document, Error, Gsm8k, Task};

/// The names [`task_by_name`] knows.
pub const TASK_NAMES: [&str; 5] =
    ["gsm8k", "gsm8k_zeroshot", "gsm8k_cot", "gsm8k_cot_zeroshot", "gsm8k_cot_llama"];

/// The task of a name, with the number of shots it is defined with or another.
///
/// Only `gsm8k` draws from the training documents; the others take none. A zero-shot task refuses
/// shots, where the harness would ignore the request.
///
/// ```
/// # use moeprune_eval::task_by_name;
/// assert_eq!(task_by_name("gsm8k_cot", None, &[])?.fewshot(), 8);
/// assert_eq!(task_by_name("gsm8k_cot", Some(4), &[])?.fewshot(), 4);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
///
/// # Errors
///
/// If there is no task of that name (the error lists them), or it cannot have that many shots.
pub fn task_by_name(
    name: &str,
    fewshot: Option<usize>,
    train: &[Document],
) -> Result<Box<dyn Task>, Error> {
    let none_but = |instead| match fewshot {
        None | Some(0) => Ok(()),
        Some(shots) => Err(Error::ZeroShot { task: name.to_owned(), shots, instead }),
    };
    let fixed = fewshot.unwrap_or(Gsm8k::CHAIN_OF_THOUGHT_FEWSHOT);
    let task = match name {
        "gsm8k" => Gsm8k::new(train.to_vec(), fewshot.unwrap_or(Gsm8k::FEWSHOT))?,
        "gsm8k_zeroshot" => {
            none_but("gsm8k")?;
            Gsm8k::zero_shot()
        }
        "gsm8k_cot" => Gsm8k::chain_of_thought(fixed)?,
        "gsm8k_cot_zeroshot" => {
            none_but("gsm8k_cot")?;
            Gsm8k::chain_of_thought_zero_shot()
        }
        "gsm8k_cot_llama" => Gsm8k::chain_of_thought_llama(fixed)?,
        _ => {
            let known = TASK_NAMES.join(", ");
            return Err(Error::UnknownTask { name: name.to_owned(), known });
        }
    };
    Ok(Box::new(task))
}
