//! Methods of strings.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, from_args},
};

use super::{is_space, refuse};

/// The longest string that a width or a count may ask for.
const MOST_WIDE: usize = 1 << 20;

/// Calls a method of a string.
pub(crate) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = value.as_str().ok_or_else(|| Error::from(ErrorKind::UnknownMethod))?;
    match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, args),
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "splitlines" => split_lines(text, args),
        "partition" | "rpartition" => partition(text, name == "rpartition", args),
        "startswith" | "endswith" => affix(text, name == "endswith", args),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "find" | "rfind" | "index" | "rindex" => find(text, name, args),
        "title" | "capitalize" | "swapcase" | "casefold" => {
            let () = from_args(args)?;
            Ok(Value::from(cased(text, name)))
        }
        "zfill" | "ljust" | "rjust" | "center" => padded(state, text, name, args),
        "isspace" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(is_space)))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit())))
        }
        "istitle" => {
            let () = from_args(args)?;
            let has_case = text.chars().any(|c| c.is_lowercase() || c.is_uppercase());
            Ok(Value::from(has_case && cased(text, "title") == text))
        }
        "isdigit" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(is_digit)))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let word = |c: char| c == '_' || c.is_alphanumeric();
            let begins = text.chars().next().is_some_and(|c| word(c) && !c.is_numeric());
            Ok(Value::from(begins && text.chars().all(word)))
        }
        "format" => {
            widths_are_small(text)?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        "join" => join(state, text, args),
        "encode" => Err(refuse("str.encode makes bytes, which are no text")),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// A decimal digit of any script, or a digit above or below the line; no fraction.
fn is_digit(character: char) -> bool {
    character.is_numeric() && !matches!(character, '¼'..='¾' | '\u{2150}'..='\u{218b}')
}

/// An error if a format has a width of five digits, or one that is an argument: the engine makes a
/// string of it before it counts its length.
pub(super) fn widths_are_small(format: &str) -> Result<(), Error> {
    let many_digits = format.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 4);
    if many_digits || format.contains('*') && format.contains('%') || format.contains(":{") {
        return Err(refuse("a format with a width of more than 9999, or one that is an argument"));
    }
    Ok(())
}

/// What is left after white space, or any of some characters, is taken off the ends.
pub(crate) fn stripped<'a>(text: &'a str, chars: Option<&str>, ends: (bool, bool)) -> &'a str {
    let goes = |character: char| {
        chars.map_or_else(|| is_space(character), |chars| chars.contains(character))
    };
    let text = if ends.0 { text.trim_start_matches(goes) } else { text };
    if ends.1 { text.trim_end_matches(goes) } else { text }
}

fn strip(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    Ok(Value::from(stripped(text, chars, (name != "rstrip", name != "lstrip"))))
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, most, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("sep")?,
    };
    let most = match most {
        Some(most) => most,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let pieces: Vec<&str> = match separator {
        Some("") => return Err(refuse("str.split: an empty separator")),
        None => words(text, most, from_right),
        Some(separator) if from_right => {
            let mut pieces: Vec<&str> = text.rsplitn(most + 1, separator).collect();
            pieces.reverse();
            pieces
        }
        Some(separator) => text.splitn(most + 1, separator).collect(),
    };
    Ok(pieces.into_iter().map(Value::from).collect())
}

/// Words between white space; after so many the rest is one, as it is.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = stripped(text, None, (!from_right, from_right));
    while !rest.is_empty() {
        if words.len() == most {
            words.push(rest);
            break;
        }
        let end = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(end) = end else {
            words.push(rest);
            break;
        };
        if from_right {
            let space = rest[end..].chars().next().map_or(1, char::len_utf8);
            words.push(&rest[end + space..]);
            rest = stripped(&rest[..end], None, (false, true));
        } else {
            words.push(&rest[..end]);
            rest = stripped(&rest[end..], None, (true, false));
        }
    }
    if from_right {
        words.reverse();
    }
    words
}

fn split_lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let end = rest.find(ends).unwrap_or(rest.len());
        let mark = rest[end..].chars().next().map_or(0, char::len_utf8);
        let mark = if rest[end..].starts_with("\r\n") { 2 } else { mark };
        lines.push(Value::from(&rest[..if keep { end + mark } else { end }]));
        rest = &rest[end + mark..];
    }
    Ok(Value::from(lines))
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        return Err(refuse("str.partition: an empty separator"));
    }
    let cut = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match cut {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// The part of a text between two places, counted in characters, from its end if negative.
fn between(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let place = |at: i64| (if at < 0 { (at + length).max(0) } else { at.min(length) }) as usize;
    if start.is_some_and(|start| start > length) {
        return None;
    }
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    (start <= end).then(|| (start, &text[byte(start)..byte(end)]))
}

fn affix(text: &str, at_end: bool, args: &[Value]) -> Result<Value, Error> {
    let (affix, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let Some((_, text)) = between(text, start, end) else { return Ok(Value::from(false)) };
    let has = |affix: &str| if at_end { text.ends_with(affix) } else { text.starts_with(affix) };
    if let Some(affix) = affix.as_str() {
        return Ok(Value::from(has(affix)));
    }
    for one in affix.try_iter()?.checked() {
        let one = one?;
        let one = one.as_str().ok_or_else(|| refuse("str.startswith: no string"))?;
        if has(one) {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn find(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let found = between(text, start, end).and_then(|(offset, part)| {
        let byte = if name.starts_with('r') { part.rfind(what) } else { part.find(what) }?;
        Some(offset + part[..byte].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(refuse(format!("{what:?} is not in the string"))),
    }
}

/// `str.title`, `str.capitalize`, `str.swapcase` and `str.casefold`.
pub(crate) fn cased(text: &str, name: &str) -> String {
    let mut cased = String::with_capacity(text.len());
    let mut within = false;
    for character in text.chars() {
        let upper = match name {
            "title" => !within,
            "capitalize" => cased.is_empty(),
            "swapcase" => character.is_lowercase(),
            _ => false,
        };
        if name == "casefold" && character == 'ß' {
            cased.push_str("ss");
        } else if upper {
            cased.extend(character.to_uppercase());
        } else {
            cased.extend(character.to_lowercase());
        }
        within = character.is_alphabetic();
    }
    cased
}

fn padded(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = match fill {
        None if name == "zfill" => "0",
        None => " ",
        Some(fill) if fill.chars().count() == 1 => fill,
        Some(_) => return Err(refuse(format!("str.{name}: the fill is one character"))),
    };
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    if missing > MOST_WIDE {
        return Err(refuse(format!("str.{name}: a width of {width}")));
    }
    state.consume_fuel(missing as u64 / 16)?;
    let (sign, text) = match text.strip_prefix(['+', '-']) {
        Some(rest) if name == "zfill" => text.split_at(text.len() - rest.len()),
        _ => ("", text),
    };
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
        _ => missing,
    };
    let (before, after) = (fill.repeat(left), fill.repeat(missing - left));
    Ok(Value::from(format!("{sign}{before}{text}{after}")))
}

fn join(state: &State<'_, '_>, separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (at, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        let item = item.as_str().ok_or_else(|| {
            refuse(format!("str.join: item {at} is a {}, expected a string", item.kind()))
        })?;
        state.consume_fuel(1 + (separator.len() + item.len()) as u64 / 64)?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    Ok(Value::from(joined))
}
