//! Items of a data set.

use serde_json::{Map, Value};

/// An item of a data set as it is published: fields by name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// What it holds.
    pub fields: Map<String, Value>,
    /// Where it is, for messages: `test.jsonl line 3`.
    pub place: String,
}

impl Record {
    /// The fields of an item, and where it is.
    pub fn new(fields: Map<String, Value>, place: impl Into<String>) -> Self {
        Self { fields, place: place.into() }
    }
}

/// What a task is evaluated on: all of a data set, or one of its subjects.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ChoiceData {
    /// The subject, of a task that has subjects.
    pub subject: Option<String>,
    /// Its questions.
    pub questions: Vec<Record>,
    /// What solved examples are taken from; none are needed without shots.
    pub examples: Vec<Record>,
}

impl ChoiceData {
    /// Questions, and what examples are taken from.
    pub fn new(questions: Vec<Record>, examples: Vec<Record>) -> Self {
        Self { subject: None, questions, examples }
    }

    /// The same of a subject.
    pub fn of_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}
