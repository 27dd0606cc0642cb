//! A record as a question with choices.

use std::collections::BTreeMap;

use minijinja::Value;
use serde_json::Value as Json;

use super::{
    ChoiceTask, Record,
    task::{Choices, Form},
    template::Template,
};
use crate::{Continuation, Error};

/// A question as it is scored.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Question {
    /// A pair to score for each choice.
    pub pairs: Vec<Continuation>,
    /// The choices' texts, whose lengths `acc_norm` divides by.
    pub choices: Vec<String>,
    /// Which choice is right, from 0.
    pub gold: usize,
}

/// A record's texts: what is given and what follows, by choice.
pub(super) struct Texts {
    /// One for all choices, or one for each.
    pub(super) contexts: Vec<String>,
    /// One for each choice, or one for all.
    pub(super) continuations: Vec<String>,
    pub(super) choices: Vec<String>,
    pub(super) gold: usize,
}

impl Texts {
    /// The solved example: without and with its delimiters.
    pub(super) fn solved(&self, task: &ChoiceTask) -> String {
        let of_gold = |texts: &[String]| texts[self.gold.min(texts.len() - 1)].clone();
        let (context, answer) = (of_gold(&self.contexts), of_gold(&self.continuations));
        format!("{context}{}{answer}{}", task.target_delimiter, task.fewshot_delimiter)
    }

    pub(super) fn question(self, task: &ChoiceTask, before: &str) -> Question {
        let pair = |index: usize| {
            let at = |texts: &[String]| texts[index.min(texts.len() - 1)].clone();
            let context = format!("{before}{}", at(&self.contexts));
            Continuation::new(
                context,
                format!("{}{}", task.target_delimiter, at(&self.continuations)),
            )
        };
        let pairs = (0..self.choices.len()).map(pair).collect();
        Question { pairs, choices: self.choices, gold: self.gold }
    }
}

/// A record of a task, to be turned into texts.
pub(super) struct Reader<'a> {
    task: &'a ChoiceTask,
    record: &'a Record,
    fields: BTreeMap<String, Value>,
    variables: Value,
}

impl<'a> Reader<'a> {
    pub(super) fn new(task: &'a ChoiceTask, subject: Option<&str>, record: &'a Record) -> Self {
        let mut fields: BTreeMap<String, Value> =
            record.fields.iter().map(|(name, value)| (name.clone(), of_json(value))).collect();
        if let Some(subject) = subject {
            fields.insert("subject".to_owned(), subject.into());
        }
        Self { task, record, variables: Value::from_pairs(fields.clone()), fields }
    }

    /// What stands before the examples.
    pub(super) fn description(&self) -> Result<String, Error> {
        let Self { task, variables, .. } = self;
        task.jinja.render(&task.description, variables).map_err(|e| self.wrong("description", e))
    }

    pub(super) fn texts(&self) -> Result<Texts, Error> {
        let Self { task, variables, .. } = self;
        let render =
            |key, template| task.jinja.render(template, variables).map_err(|e| self.wrong(key, e));
        let (contexts, continuations) = match &task.form {
            Form::Choices { prompt, choices, choice } => {
                let mut texts = self.choices(choices)?;
                if let Some(template) = choice {
                    for text in &mut texts {
                        *text = self.rewritten(template, text)?;
                    }
                }
                (vec![render("prompt", prompt)?], texts)
            }
            Form::Contexts { prompts, continuation } => {
                let prompts = prompts.iter().map(|prompt| render("prompts", prompt));
                (prompts.collect::<Result<_, _>>()?, vec![render("continuation", continuation)?])
            }
        };
        let choices = if contexts.len() > 1 { contexts.clone() } else { continuations.clone() };
        let gold = self.gold(&choices)?;
        Ok(Texts { contexts, continuations, choices, gold })
    }

    fn rewritten(&self, template: &Template, choice: &str) -> Result<String, Error> {
        let mut fields = self.fields.clone();
        fields.insert("choice".to_owned(), choice.into());
        let rendered = self.task.jinja.render(template, &Value::from_pairs(fields));
        rendered.map_err(|reason| self.wrong("choice", reason))
    }

    fn choices(&self, choices: &Choices) -> Result<Vec<String>, Error> {
        let Self { task, variables, .. } = self;
        let texts = match choices {
            Choices::Templates(templates) => {
                let text = |template| {
                    task.jinja.render(template, variables).map_err(|e| self.wrong("choices", e))
                };
                templates.iter().map(text).collect::<Result<Vec<_>, _>>()?
            }
            Choices::Expression(expression) => {
                let found = task
                    .jinja
                    .evaluate(expression, variables)
                    .map_err(|e| self.wrong("choices", e))?;
                self.strings("choices", &found)?
            }
        };
        match texts.len() {
            0 | 1 => Err(self
                .wrong("choices", format!("{} where at least 2 are to choose from", texts.len()))),
            _ => Ok(texts),
        }
    }

    fn strings(&self, key: &'static str, value: &Value) -> Result<Vec<String>, Error> {
        let expected = || format!("expected a list of texts, found {}", shown(value));
        let is_list = matches!(value.kind(), minijinja::value::ValueKind::Seq);
        let items = value.try_iter().ok().filter(|_| is_list);
        let items = items.ok_or_else(|| self.wrong(key, expected()))?;
        let text = |item: Value| {
            item.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, expected()))
        };
        items.map(text).collect()
    }

    /// Which choice is right: by its label where the task has labels, by its text, or by its number.
    fn gold(&self, choices: &[String]) -> Result<usize, Error> {
        let Self { task, variables, .. } = self;
        let wrong = |reason| self.wrong("answer", reason);
        let answer = task.jinja.evaluate(&task.answer, variables).map_err(wrong)?;
        if let Some(labels) = &task.labels {
            let labels =
                task.jinja.evaluate(labels, variables).map_err(|e| self.wrong("labels", e))?;
            let count = labels.len().unwrap_or(0);
            if count != choices.len() {
                let (of, found) = (choices.len(), shown(&labels));
                let reason = format!("expected one for each of the {of} choices, found {found}");
                return Err(self.wrong("labels", reason));
            }
            let mut among = labels.try_iter().map_err(|e| self.wrong("labels", e.to_string()))?;
            let found =
                among.position(|label| label == answer).filter(|&index| index < choices.len());
            let reason = || format!("expected one of {}, found {}", shown(&labels), shown(&answer));
            return found.ok_or_else(|| wrong(reason()));
        }
        let by_text =
            answer.as_str().and_then(|text| choices.iter().position(|choice| choice == text));
        let number = || match answer.as_str() {
            Some(text) => text.parse().ok(),
            None => usize::try_from(answer.clone()).ok(),
        };
        let found = by_text.or_else(number).filter(|&index| index < choices.len());
        let reason = || {
            let last = choices.len() - 1;
            let hidden = "; files without answers (often named `test`) cannot be scored";
            format!(
                "expected a number from 0 to {last} or one of the choices, found {}{hidden}",
                shown(&answer)
            )
        };
        found.ok_or_else(|| wrong(reason()))
    }

    /// An error of one of the task's keys: most often the record has other fields than the task reads.
    fn wrong(&self, key: &'static str, reason: String) -> Error {
        let (task, place) = (self.task.name.clone(), self.record.place.clone());
        if self.task.reads.iter().all(|name| self.fields.contains_key(name)) {
            return Error::Template { task, place, key, reason };
        }
        let named = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|name| format!("`{name:.40}`")).collect::<Vec<_>>().join(", ")
        };
        let expected = named(&mut self.task.reads.iter());
        let found = named(&mut self.record.fields.keys().take(12));
        let found = if found.is_empty() { "none".to_owned() } else { found };
        let published = match self.task.data.hub.as_str() {
            "" => String::new(),
            hub => format!(" ({hub} on the Hugging Face Hub has them)"),
        };
        Error::Fields {
            task,
            place,
            expected: expected.into(),
            found: found.into(),
            published: published.into(),
        }
    }
}

fn shown(value: &Value) -> String {
    format!("{:.80}", format!("{value:?}"))
}

fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(of_json).collect(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), of_json(value))))
        }
    }
}
