//! What stands in the TOML file of a task.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The keys of a file. [`ChoiceTask`](super::ChoiceTask) says what they mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) name: String,
    #[serde(default)]
    pub(super) about: String,
    pub(super) prompt: Option<String>,
    pub(super) prompts: Option<Vec<String>>,
    pub(super) continuation: Option<String>,
    pub(super) choices: Option<Choices>,
    pub(super) choice: Option<String>,
    pub(super) answer: String,
    pub(super) labels: Option<String>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default = "space")]
    pub(super) target_delimiter: String,
    #[serde(default = "blank_line")]
    pub(super) fewshot_delimiter: String,
    #[serde(default = "accuracy")]
    pub(super) metrics: Vec<String>,
    #[serde(default)]
    pub(super) data: Data,
    #[serde(default)]
    pub(super) fewshot: Fewshot,
    #[serde(default)]
    pub(super) groups: BTreeMap<String, Vec<String>>,
}

/// A template for each choice, or an expression for all of them.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an expression in quotes, or a list of templates")]
pub(super) enum Choices {
    Expression(String),
    Templates(Vec<String>),
}

/// Where a data set is published, and which of its parts are used.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Data {
    pub(super) hub: String,
    pub(super) config: String,
    pub(super) split: Option<String>,
    pub(super) fewshot_split: Option<String>,
}

/// How solved examples are found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fewshot {
    pub(super) shots: usize,
    pub(super) draw: Draw,
    pub(super) leave_out_question: bool,
}

/// Which examples are taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Draw {
    /// Others for each question, by the harness's generator and seed.
    #[default]
    Random,
    /// The first ones.
    First,
}

fn space() -> String {
    " ".to_owned()
}

fn blank_line() -> String {
    "\n\n".to_owned()
}

fn accuracy() -> Vec<String> {
    vec!["acc".to_owned()]
}
