//! What Python's Jinja has and the engine here has not, or has otherwise.

use minijinja::{Environment, Error, ErrorKind, State, Value, value::from_args};
use minijinja_contrib::pycompat;
use regex::Regex;

use crate::whitespace;

/// Gives an environment the methods and filters that templates of the harness are written for.
pub(super) fn extend(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("regex_replace", regex_replace);
    environment.set_formatter(|out, state, value| {
        let written = match value.kind() {
            minijinja::value::ValueKind::Bool => {
                out.write_str(if value.is_true() { "True" } else { "False" })
            }
            minijinja::value::ValueKind::None => out.write_str("None"),
            minijinja::value::ValueKind::Map | minijinja::value::ValueKind::Seq => {
                let what =
                    format!("a {} cannot stand in a text; name one of its items", value.kind());
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
            _ => return minijinja::escape_formatter(out, state, value),
        };
        written.map_err(|_| Error::new(ErrorKind::WriteFailure, "the text could not be written"))
    });
}

fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match (name, args) {
            ("strip", []) => return Ok(whitespace::strip(text).into()),
            ("lstrip", []) => return Ok(whitespace::strip_start(text).into()),
            ("rstrip", []) => return Ok(whitespace::strip_end(text).into()),
            ("index", _) => return index_in_text(text, args),
            _ => {}
        }
    } else if name == "index" && value.kind() == minijinja::value::ValueKind::Seq {
        return index_in_list(value, args);
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// `str.index`: counted in characters.
fn index_in_text(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (part,): (&str,) = from_args(args)?;
    let found = text.find(part);
    let found = found.ok_or_else(|| not_among(&format!("{part:?}"), &format!("{text:?}")))?;
    Ok(text[..found].chars().count().into())
}

fn index_in_list(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(args)?;
    let found = list.try_iter()?.position(|item| item == wanted);
    found.map(Value::from).ok_or_else(|| not_among(&wanted.to_string(), &list.to_string()))
}

fn not_among(wanted: &str, all: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{wanted:.60} is not in {all:.120}"))
}

/// The harness's filter: every match, or the first `count` ones, replaced.
fn regex_replace(
    text: &str,
    pattern: &str,
    with: &str,
    count: Option<usize>,
) -> Result<String, Error> {
    let regex = Regex::new(pattern).map_err(|error| {
        let what = format!("`{pattern}` is not a regular expression");
        Error::new(ErrorKind::InvalidOperation, what).with_source(error)
    })?;
    Ok(regex.replacen(text, count.unwrap_or(0), with).into_owned())
}
