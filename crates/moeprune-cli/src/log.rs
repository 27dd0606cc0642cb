//! Standard error: lines for people, or with `--log-format json` one JSON object on each line for programs.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value, json};

/// In which form progress, notes and errors are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LogFormat {
    /// Bars on a terminal, lines otherwise.
    #[default]
    Text,
    /// One JSON object a line, for schedulers: progress at most once a second.
    Json,
}

impl LogFormat {
    const ALL: [(&'static str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];

    /// The format of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// One of the names, for `value_parser`.
    pub(crate) fn names() -> impl TypedValueParser<Value = Self> {
        PossibleValuesParser::new(Self::ALL.map(|(name, _)| name))
            .map(|name| Self::named(&name).unwrap_or_default())
    }
}

/// Whether lines are JSON. It holds for the process, as standard error does.
static JSON: AtomicBool = AtomicBool::new(false);

/// What is written from now on, panics included.
pub(crate) fn use_format(format: LogFormat) {
    if format == LogFormat::Text {
        return;
    }
    JSON.store(true, Ordering::Relaxed);
    std::panic::set_hook(Box::new(|panic| {
        write(entry("error", json!({ "message": format!("a defect of moeprune: {panic}") })));
    }));
}

/// Whether lines are JSON.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Writes a message to standard error. What it begins with says what it is: `error: `, `warning: `, or a note.
pub(crate) fn say(message: &str) {
    if !is_json() {
        write_line(message);
        return;
    }
    for (kind, message) in by_kind(message) {
        write(entry(kind, json!({ "message": message })));
    }
}

/// Writes an error with what caused it.
pub(crate) fn say_error(message: &str, causes: &[String]) {
    if is_json() {
        write(entry("error", json!({ "message": message, "causes": causes })));
        return;
    }
    let causes: String = causes.iter().map(|cause| format!("\n  because: {cause}")).collect();
    write_line(&format!("error: {message}{causes}"));
}

/// Writes what a step of a run does, where lines are JSON.
pub(crate) fn say_step(kind: &str, fields: Value) {
    write(entry(kind, fields));
}

/// The parts of a message: each line that names its kind begins one.
fn by_kind(message: &str) -> Vec<(&'static str, String)> {
    let mut parts: Vec<(&'static str, String)> = Vec::new();
    for line in message.lines() {
        let named = ["error", "warning", "note"]
            .into_iter()
            .find_map(|kind| Some((kind, line.strip_prefix(kind)?.strip_prefix(": ")?.to_owned())));
        match (named, parts.last_mut()) {
            (Some(part), _) => parts.push(part),
            (None, None) => parts.push(("note", line.to_owned())),
            (None, Some((_, before))) => {
                before.push('\n');
                before.push_str(line);
            }
        }
    }
    parts
}

/// The object of a line: when, what kind, and what there is to say.
fn entry(kind: &str, fields: Value) -> Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut all = Map::new();
    all.insert("time".into(), json!(since.as_millis() as f64 / 1e3));
    all.insert("kind".into(), kind.into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

fn write(entry: Value) {
    write_line(&entry.to_string());
}

/// In one piece, so that lines of several threads do not mix. A closed standard error is ignored.
fn write_line(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: &[(&str, &str)]) {
        let found = by_kind(message);
        let found: Vec<_> = found.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
        assert_eq!(found, expected, "{message}");
    }

    #[test]
    fn messages_are_parted_by_what_they_are() {
        check("resuming", &[("note", "resuming")]);
        check("note: a link", &[("note", "a link")]);
        check("warning: little", &[("warning", "little")]);
        check("error: no file", &[("error", "no file")]);
        check(
            "needs 3 GB\nwarning: 2 GB left",
            &[("note", "needs 3 GB"), ("warning", "2 GB left")],
        );
        check("error: one\n  two", &[("error", "one\n  two")]);
        check("warning:x", &[("note", "warning:x")]);
        check("warnings: x", &[("note", "warnings: x")]);
        check("", &[]);
    }

    #[test]
    fn a_line_is_an_object() {
        let line = entry("note", json!({ "message": "a\n\"b\"" })).to_string();
        assert!(!line.contains('\n'), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (value["kind"].as_str(), value["message"].as_str()),
            (Some("note"), Some("a\n\"b\""))
        );
        assert!(value["time"].as_f64().unwrap() > 1e9);
    }
}
