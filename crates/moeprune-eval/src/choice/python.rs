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

/// The harness's filter: every match, or the first `count` ones, replaced as `re.sub` does: `\1`, `\g<1>` and `\g<name>` stand for groups.
fn regex_replace(
    text: &str,
    pattern: &str,
    with: &str,
    count: Option<usize>,
) -> Result<String, Error> {
    let regex = Regex::new(pattern).map_err(|error| {
        let what = format!(
            "`{pattern}` is not a regular expression that is read here, which has neither lookaround nor references to \
             groups"
        );
        Error::new(ErrorKind::InvalidOperation, what).with_source(error)
    })?;
    let with = replacement(with, &regex)?;
    Ok(regex.replacen(text, count.unwrap_or(0), with.as_str()).into_owned())
}

/// A replacement of Python in the writing of the engine here, where `$` begins a group.
fn replacement(python: &str, regex: &Regex) -> Result<String, Error> {
    let wrong = |what: String| {
        let what = format!("`{python}` is no replacement: {what}");
        Error::new(ErrorKind::InvalidOperation, what)
    };
    let mut written = String::new();
    let mut rest = python;
    while let Some(at) = rest.find('\\') {
        written += &rest[..at].replace('$', "$$");
        rest = &rest[at + 1..];
        let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
        let (group, length) = match rest.chars().next() {
            Some('1'..='9') => (&rest[..digits], digits),
            Some('g') => {
                let name = rest[1..].strip_prefix('<').and_then(|name| name.split_once('>'));
                let (name, _) = name.ok_or_else(|| wrong("`\\g` without `<name>`".to_owned()))?;
                (name, name.len() + 3)
            }
            Some(escaped) => {
                written.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' => '\\',
                    other => return Err(wrong(format!("bad escape `\\{other}`"))),
                });
                rest = &rest[escaped.len_utf8()..];
                continue;
            }
            None => return Err(wrong("a backslash at its end".to_owned())),
        };
        let is_there = match group.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|name| name == group),
        };
        if !is_there {
            return Err(wrong(format!("the expression has no group `{group}`")));
        }
        written += &format!("${{{group}}}");
        rest = &rest[length..];
    }
    Ok(written + &rest.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::regex_replace;

    /// Expected is what Python's `re.sub` gives, or part of a message.
    fn check(text: &str, pattern: &str, with: &str, expected: Result<&str, &str>) {
        match (regex_replace(text, pattern, with, None), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{pattern} {with}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{pattern} {with}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn replacements_are_pythons() {
        check("ab ab", "(a)(b)", r"\2\1", Ok("ba ba"));
        check("ab", "(?P<x>a)b", r"\g<x>1\g<0>", Ok("a1ab"));
        check("5", r"\d", "$0 ${x} $", Ok("$0 ${x} $"));
        check("a", "a", r"\\ \n", Ok("\\ \n"));
        check("a", "(a)", r"\2", Err("has no group `2`"));
        check("a", "(a)", r"\g<y>", Err("has no group `y`"));
        check("a", "a", r"\q", Err("bad escape"));
        check("a", "a", "\\", Err("a backslash at its end"));
        check("a", "(?=a)", "", Err("neither lookaround"));
    }
}
