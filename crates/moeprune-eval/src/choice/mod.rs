//! Multiple choice: tasks that are described in files, and how they are scored.

mod built_in;
mod description;
mod evaluate;
mod examples;
mod metric;
mod python;
mod question;
mod record;
mod task;
mod template;

pub use self::{
    built_in::{CHOICE_TASK_NAMES, choice_task},
    evaluate::{AskedQuestions, evaluate_choices},
    metric::ChoiceMetric,
    question::Question,
    record::{ChoiceData, Record},
    task::ChoiceTask,
};
