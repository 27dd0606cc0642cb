//! The tasks that come with this crate.

use super::ChoiceTask;
use crate::Error;

/// The names of the multiple-choice tasks that [`choice_task`] knows, apart from groups and subjects (`mmlu_stem`, `mmlu_anatomy`).
pub const CHOICE_TASK_NAMES: [&str; 9] = [
    "arc_challenge",
    "arc_easy",
    "boolq",
    "hellaswag",
    "mmlu",
    "openbookqa",
    "piqa",
    "rte",
    "winogrande",
];

/// The files of those, in their order.
const FILES: [&str; 9] = [
    include_str!("../../tasks/arc_challenge.toml"),
    include_str!("../../tasks/arc_easy.toml"),
    include_str!("../../tasks/boolq.toml"),
    include_str!("../../tasks/hellaswag.toml"),
    include_str!("../../tasks/mmlu.toml"),
    include_str!("../../tasks/openbookqa.toml"),
    include_str!("../../tasks/piqa.toml"),
    include_str!("../../tasks/rte.toml"),
    include_str!("../../tasks/winogrande.toml"),
];

/// The multiple-choice task of a name, or a group or subject of one (`mmlu_stem`, `mmlu_anatomy`); nothing if there is none.
///
/// ```
/// # use moeprune_eval::choice_task;
/// assert_eq!(choice_task("mmlu_stem")?.expect("built in").subjects().len(), 19);
/// assert!(choice_task("gsm8k")?.is_none());
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
///
/// # Errors
/// If a built-in file were wrong, which tests rule out.
pub fn choice_task(name: &str) -> Result<Option<ChoiceTask>, Error> {
    for (known, text) in CHOICE_TASK_NAMES.iter().zip(FILES) {
        if name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
            let task = ChoiceTask::from_toml(text, known)?;
            let found = if name == *known { Some(task) } else { task.part(name) };
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}
