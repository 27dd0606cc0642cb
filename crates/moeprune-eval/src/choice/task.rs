//! A multiple-choice task, parsed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ChoiceMetric,
    description::{self, Data, Description, Fewshot},
    template::{Expression, Jinja, Template},
};
use crate::Error;

/// A multiple-choice task, described by a TOML file.
///
/// Templates and expressions are Jinja, as in lm-evaluation-harness's YAML; a record's fields are its variables.
///
/// | key | is | |
/// |---|---|---|
/// | `name` | text | what the task is called in reports |
/// | `about` | text | one line for lists of tasks |
/// | `prompt` | template | the question, before the delimiter |
/// | `choices` | expression that gives a list of texts, or list of templates | what may follow |
/// | `choice` | template | makes of each choice, the variable `choice`, the text that is scored |
/// | `prompts`, `continuation` | list of templates, template | in place of `prompt` and `choices` where what is given differs and the same text follows |
/// | `answer` | expression | which choice is right: its number from 0, its text, or its label |
/// | `labels` | expression that gives a list | the choices' labels, among which `answer` is looked up |
/// | `metrics` | list of `acc`, `acc_norm`, `acc_bytes` | `["acc"]` unless given; the first one counts in comparisons |
/// | `target_delimiter` | text | between prompt and choice; a space unless given |
/// | `fewshot_delimiter` | text | after a solved example; an empty line unless given |
/// | `description` | template | before everything |
/// | `[data]` | `hub`, `config`, `split`, `fewshot_split` | where the data is published; which part of it; which files hold questions and examples |
/// | `[fewshot]` | `shots`, `draw`, `leave_out_question` | how many examples (0), `"random"` or the `"first"` ones, and whether the question itself is left out |
/// | `[groups]` | lists of subjects by the group's name | each subject has data of its own; the variable `subject` is its name |
///
/// ```
/// use moeprune_eval::{ChoiceData, ChoiceTask, EvaluateOptions, LogLikelihood, Record, evaluate_choices,
///     score_each_continuation};
///
/// let task = ChoiceTask::from_toml(
///     r#"
///     name = "capitals"
///     prompt = "The capital of {{ country }} is"
///     choices = "cities"
///     answer = "correct"
///     "#,
///     "capitals.toml",
/// )?;
/// let record = serde_json::json!({"country": "Peru", "cities": ["Quito", "Lima"], "correct": 1});
/// let record = Record::new(record.as_object().unwrap().clone(), "capitals.jsonl line 1");
/// let data = [ChoiceData::new(vec![record], vec![])];
/// let mut shortest = score_each_continuation(|pair| Ok(LogLikelihood::new(-(pair.text.len() as f64), 1, false)));
/// let report = evaluate_choices(&task, None, &data, &mut shortest, &EvaluateOptions::default())?;
/// assert_eq!(report.metrics["acc"].mean, 1.0);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChoiceTask {
    pub(super) name: String,
    suite: String,
    about: String,
    pub(super) jinja: Jinja,
    pub(super) form: Form,
    pub(super) answer: Expression,
    pub(super) labels: Option<Expression>,
    pub(super) description: Template,
    pub(super) target_delimiter: String,
    pub(super) fewshot_delimiter: String,
    pub(super) metrics: Vec<ChoiceMetric>,
    pub(super) data: Data,
    pub(super) fewshot: Fewshot,
    groups: BTreeMap<String, Vec<String>>,
    /// The fields that templates and expressions read.
    pub(super) reads: BTreeSet<String>,
}

/// What differs from choice to choice.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// One context, several continuations.
    Choices { prompt: Template, choices: Choices, choice: Option<Template> },
    /// Several contexts, one continuation.
    Contexts { prompts: Vec<Template>, continuation: Template },
}

#[derive(Clone, Debug)]
pub(super) enum Choices {
    Templates(Vec<Template>),
    Expression(Expression),
}

impl ChoiceTask {
    /// Parses a file's text; `origin` is its name in messages.
    ///
    /// # Errors
    /// If it is no TOML, has unknown keys or lacks some, or a template, an expression or a metric is none.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::TaskFile { origin: origin.to_owned(), reason };
        let parsed: Result<Description, toml::de::Error> = toml::from_str(text);
        let description = parsed.map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        Builder { jinja: Jinja::new(), reads: BTreeSet::new() }.build(description).map_err(wrong)
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }

    /// How many solved examples precede each question unless the caller says otherwise.
    #[must_use]
    pub fn shots(&self) -> usize {
        self.fewshot.shots
    }

    /// What is measured; the first one counts in comparisons.
    #[must_use]
    pub fn metrics(&self) -> &[ChoiceMetric] {
        &self.metrics
    }

    /// Which files of a data set hold the questions (`test`, `validation`), if that is said.
    #[must_use]
    pub fn split(&self) -> Option<&str> {
        self.data.split.as_deref()
    }

    /// Which files of a data set hold the examples (`train`, `dev`), if that is said.
    #[must_use]
    pub fn fewshot_split(&self) -> Option<&str> {
        self.data.fewshot_split.as_deref()
    }

    /// The repository on the Hugging Face Hub in which the data is published, or nothing.
    #[must_use]
    pub fn published(&self) -> &str {
        &self.data.hub
    }

    /// Which part of the published data set it is (`ARC-Easy`), or nothing.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.data.config
    }

    /// The name of the task that this is a group or a subject of; its own if it is a whole one.
    #[must_use]
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// The fields of a record that the task reads.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.reads.iter().map(String::as_str)
    }

    /// The groups of subjects by name, in order of their names; none of a task without subjects.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.groups.iter().map(|(name, subjects)| (name.as_str(), subjects.as_slice()))
    }

    /// All subjects in order of their names; none of a task without subjects.
    #[must_use]
    pub fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = self.groups.values().flatten().map(String::as_str).collect();
        subjects.sort_unstable();
        subjects
    }

    /// The same task on one of its groups or subjects: `mmlu_stem` and `mmlu_anatomy` of `mmlu`. `None` if it has none of that name.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<Self> {
        let part = name.strip_prefix(&self.name)?.strip_prefix('_')?;
        let groups = match self.groups.get(part) {
            Some(subjects) => [(part.to_owned(), subjects.clone())].into(),
            None => {
                let holds = |subjects: &Vec<String>| subjects.iter().any(|subject| subject == part);
                let (group, _) = self.groups.iter().find(|(_, subjects)| holds(subjects))?;
                [(group.clone(), vec![part.to_owned()])].into()
            }
        };
        Some(Self { name: name.to_owned(), groups, ..self.clone() })
    }
}

struct Builder {
    jinja: Jinja,
    reads: BTreeSet<String>,
}

impl Builder {
    fn build(mut self, mut file: Description) -> Result<ChoiceTask, String> {
        let form = self.form(&mut file)?;
        let answer = self.expression("answer", &file.answer)?;
        let labels =
            file.labels.as_deref().map(|labels| self.expression("labels", labels)).transpose()?;
        let description = self.template("description", &file.description)?;
        let metrics = metrics(&file.metrics)?;
        check_name(&file.name)?;
        check_groups(&file.groups)?;
        self.reads.remove("choice");
        if !file.groups.is_empty() {
            self.reads.remove("subject");
        }
        Ok(ChoiceTask {
            suite: file.name.clone(),
            name: file.name,
            about: file.about,
            jinja: self.jinja,
            form,
            answer,
            labels,
            description,
            target_delimiter: file.target_delimiter,
            fewshot_delimiter: file.fewshot_delimiter,
            metrics,
            data: file.data,
            fewshot: file.fewshot,
            groups: file.groups,
            reads: self.reads,
        })
    }

    fn form(&mut self, file: &mut Description) -> Result<Form, String> {
        match (file.prompt.take(), file.choices.take(), file.prompts.take(), file.continuation.take()) {
            (Some(prompt), Some(choices), None, None) => Ok(Form::Choices {
                prompt: self.template("prompt", &prompt)?,
                choices: self.choices(choices)?,
                choice: file.choice.as_deref().map(|choice| self.template("choice", choice)).transpose()?,
            }),
            (None, None, Some(prompts), Some(continuation)) if prompts.len() > 1 && file.choice.is_none() => {
                let prompts = prompts.iter().map(|prompt| self.template("prompts", prompt));
                let prompts = prompts.collect::<Result<_, _>>()?;
                Ok(Form::Contexts { prompts, continuation: self.template("continuation", &continuation)? })
            }
            _ => Err("expected `prompt` and `choices` (with `choice`, if each is to be rewritten), or `prompts`, at \
                      least two, and `continuation`"
                .to_owned()),
        }
    }

    fn choices(&mut self, choices: description::Choices) -> Result<Choices, String> {
        match choices {
            description::Choices::Expression(source) => {
                Ok(Choices::Expression(self.expression("choices", &source)?))
            }
            description::Choices::Templates(sources) => {
                let templates = sources.iter().map(|source| self.template("choices", source));
                Ok(Choices::Templates(templates.collect::<Result<_, _>>()?))
            }
        }
    }

    fn template(&mut self, key: &str, source: &str) -> Result<Template, String> {
        let template = self.jinja.template(source, &mut self.reads);
        template.map_err(|reason| {
            format!("`{key}`: expected a Jinja template, found {source:?}: {reason}")
        })
    }

    fn expression(&mut self, key: &str, source: &str) -> Result<Expression, String> {
        let expression = self.jinja.expression(source, &mut self.reads);
        expression.map_err(|reason| {
            format!("`{key}`: expected a Jinja expression, such as a field's name, found {source:?}: {reason}")
        })
    }
}

fn metrics(names: &[String]) -> Result<Vec<ChoiceMetric>, String> {
    let known = || ChoiceMetric::ALL.map(ChoiceMetric::name).join(", ");
    let metric = |name: &String| {
        let found = ChoiceMetric::ALL.into_iter().find(|metric| metric.name() == name);
        found.ok_or_else(|| format!("`metrics`: expected some of {}, found {name:?}", known()))
    };
    match names {
        [] => Err(format!("`metrics`: expected some of {}, found none", known())),
        names => names.iter().map(metric).collect(),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!("`name`: expected letters, digits and `_`, found {name:?}")),
    }
}

fn check_groups(groups: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (group, subjects) in groups {
        if subjects.is_empty() {
            return Err(format!("`groups.{group}`: expected subjects, found none"));
        }
        if let Some(twice) = subjects.iter().find(|subject| !seen.insert(subject.as_str())) {
            return Err(format!("`groups.{group}`: `{twice}` is named twice"));
        }
    }
    Ok(())
}
