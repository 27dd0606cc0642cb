//! What a command writes, and whether a file is an earlier one of the same kind.

use std::{
    fmt,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputKind {
    /// The report of a pruning, JSON.
    Report,
    /// The scores of an evaluation, JSON.
    Evaluation,
    /// Prunings side by side, JSON.
    Comparison,
    /// Prunings side by side, HTML.
    Page,
    /// The times of a machine, JSON.
    Bench,
    /// A page of the manual, for `man`.
    ManPage,
    /// A plan. One that exists is never replaced: it may have been edited.
    Plan,
    /// An observation. One that exists is never replaced: it may have taken hours.
    Observation,
    /// A calibration text. One that exists is never replaced.
    Text,
    /// An archive. One that exists is never replaced.
    Archive,
}

/// A JSON file that is larger was not written here, or is too large to be looked at in passing.
const LONGEST_JSON: u64 = 1 << 28;

/// So much of a page holds its title.
const HEAD_OF_PAGE: u64 = 4096;

const TOOL: &str = "moeprune ";

impl OutputKind {
    /// What it is called in a message.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Evaluation => "evaluation",
            Self::Comparison => "comparison",
            Self::Page => "page",
            Self::Bench => "result of `bench`",
            Self::ManPage => "page of the manual",
            Self::Plan => "plan",
            Self::Observation => "observation",
            Self::Text => "text",
            Self::Archive => "archive",
        }
    }

    /// Whether an earlier output of this kind may be replaced at all.
    pub(crate) fn is_replaceable(self) -> bool {
        !matches!(self, Self::Plan | Self::Observation | Self::Text | Self::Archive)
    }

    /// Whether an earlier output of this kind may be replaced where it is in a model folder. A
    /// report there belongs to the model.
    pub(crate) fn may_lie_in_a_model(self) -> bool {
        self.is_replaceable() && self != Self::Report
    }

    /// Whether a file is an earlier output of this kind that may be replaced. What cannot be
    /// read is none.
    pub(crate) fn wrote(self, path: &Path) -> bool {
        // Opening a FIFO would wait for a writer.
        if !self.is_replaceable() || !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return false;
        }
        let Ok(file) = File::open(path) else { return false };
        if matches!(self, Self::Page | Self::ManPage) {
            let mut head = Vec::new();
            let read = file.take(HEAD_OF_PAGE).read_to_end(&mut head);
            let is_it = if self == Self::Page { is_page } else { is_man_page };
            return read.is_ok() && is_it(&String::from_utf8_lossy(&head));
        }
        if file.metadata().map_or(true, |metadata| metadata.len() > LONGEST_JSON) {
            return false;
        }
        let reader = BufReader::with_capacity(1 << 16, file.take(LONGEST_JSON));
        Outline::read(reader).is_some_and(|outline| self.has(&outline))
    }

    fn has(self, outline: &Outline) -> bool {
        let by_us = outline.tool.as_deref().is_some_and(|tool| tool.starts_with(TOOL));
        let has = |keys: &[&str]| keys.iter().all(|&key| outline.keys.iter().any(|k| k == key));
        match self {
            Self::Report => {
                by_us && has(&["format", "model", "sparsity", "layers", "stages", "recipe"])
            }
            Self::Evaluation => match outline.task.as_deref() {
                Some("perplexity") => has(&["blocks", "tokens", "nll", "perplexity"]),
                Some(_) => has(&["n", "fewshot", "answers"]),
                // Of several tasks.
                None => by_us && has(&["evaluations"]),
            },
            Self::Comparison => by_us && has(&["format", "model", "observed", "cuts", "layers"]),
            Self::Bench => by_us && has(&["command", "machine", "layer", "ceilings", "whole"]),
            Self::Page
            | Self::ManPage
            | Self::Plan
            | Self::Observation
            | Self::Text
            | Self::Archive => false,
        }
    }
}

fn is_page(head: &str) -> bool {
    head.starts_with("<!DOCTYPE html>")
        && head
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"))
            .is_some_and(|(title, _)| title.ends_with(": prunings compared"))
}

fn is_man_page(head: &str) -> bool {
    head.lines().find_map(|line| line.strip_prefix(".TH ")).is_some_and(|title| {
        title
            .split(' ')
            .next()
            .is_some_and(|name| name == "moeprune" || name.starts_with("moeprune-"))
    })
}

/// The keys of a JSON object, and the values of those that say what it is.
#[derive(Debug, Default)]
struct Outline {
    keys: Vec<String>,
    tool: Option<String>,
    task: Option<String>,
}

/// Longer keys, more of them, and longer names of tools and tasks are not ours.
const LONGEST_NAME: usize = 256;
const MOST_KEYS: usize = 256;

impl Outline {
    fn read(reader: impl Read) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_reader(reader);
        let outline = json.deserialize_map(OutlineVisitor).ok()?;
        json.end().ok()?;
        Some(outline)
    }
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut outline = Outline::default();
        while let Some(key) = map.next_key::<String>()? {
            if key.len() > LONGEST_NAME || outline.keys.len() >= MOST_KEYS {
                return Err(A::Error::custom("not an output"));
            }
            match key.as_str() {
                "tool" => outline.tool = map.next_value_seed(Name)?,
                "task" => outline.task = map.next_value_seed(Name)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            outline.keys.push(key);
        }
        Ok(outline)
    }
}

/// A short string, or `None` for any other value.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= LONGEST_NAME).then(|| text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<OutputKind>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        use OutputKind::{
            Archive, Bench, Comparison, Evaluation, ManPage, Observation, Page, Plan, Report,
        };
        let kinds =
            [Report, Evaluation, Comparison, Page, Bench, ManPage, Plan, Observation, Archive];
        for kind in kinds {
            assert_eq!(kind.wrote(&path), expected == Some(kind), "{kind:?}: {text}");
        }
    }

    #[test]
    fn outputs_are_known_by_their_content() {
        let report = r#"{"format":1,"tool":"moeprune 0.1.0","model":{},"sparsity":{},"layers":[],"stages":[],"recipe":{}}"#;
        check(report, Some(OutputKind::Report));
        check(&report.replace("moeprune", "another"), None);
        check(&report.replace("\"stages\"", "\"steps\""), None);
        check(&format!("{report}\n{report}"), None);
        check(&report[..report.len() - 1], None);
        let several = r#"{"tool":"moeprune 0.1.0","evaluations":[{"task":"arc_easy"}]}"#;
        check(several, Some(OutputKind::Evaluation));
        check(r#"{"tool":"other 1","evaluations":[]}"#, None);
        let answers = r#"{"task":"gsm8k","n":1,"fewshot":5,"strict-match":0.5,"answers":[{}]}"#;
        check(answers, Some(OutputKind::Evaluation));
        check(&answers.replace("\"gsm8k\"", "7"), None);
        let perplexity =
            r#"{"blocks":1,"tokens":9,"nll":1.5,"perplexity":4.5,"task":"perplexity"}"#;
        check(perplexity, Some(OutputKind::Evaluation));
        check(&perplexity.replace("\"task\":\"perplexity\"", "\"task\":\"p\""), None);
        let comparison =
            r#"{"format":1,"tool":"moeprune 9","model":"m","observed":[],"cuts":[],"layers":[]}"#;
        check(comparison, Some(OutputKind::Comparison));
        let bench = r#"{"tool":"moeprune 0.1.0","command":[],"machine":{},"layer":{},"ceilings":{},"whole":{}}"#;
        check(bench, Some(OutputKind::Bench));
        let page = "<!DOCTYPE html><html><head><title>m: prunings compared</title>";
        check(page, Some(OutputKind::Page));
        check(&page.replace("compared", "apart"), None);
        let man = ".ie \\n(.g .ds Aq \\(aq\n.TH moeprune-eval 1 \"moeprune 0.1.0\"\n.SH NAME\n";
        check(man, Some(OutputKind::ManPage));
        check(&man.replace("moeprune-eval", "moeprune"), Some(OutputKind::ManPage));
        check(&man.replace("moeprune-eval", "grep"), None);
    }

    #[test]
    fn anything_else_is_none() {
        let deep = "[".repeat(100_000);
        let long = format!("{{\"{}\":1}}", "k".repeat(1000));
        let many = format!("{{{}}}", vec!["\"k\":1"; 1000].join(","));
        for text in ["", " ", "null", "[]", "{", "{}", "plain", "\u{feff}{}", &deep, &long, &many] {
            check(text, None);
        }
    }
}
