//! `str` and `repr` of values.

use std::fmt::Write;

use minijinja::{Error, Value, value::ValueKind};

use super::{MOST_DEEP, float, list::List, refuse};

/// `str(value)`, and nothing for what is undefined.
pub(crate) fn display(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_display(&mut text, value)?;
    Ok(text)
}

/// Writes a container where there is no room for an error. One that is too large to be written has
/// used up its which ends the rendering.
pub(super) fn render(f: &mut std::fmt::Formatter<'_>, value: &Value) -> std::fmt::Result {
    f.write_str(&display(value).unwrap_or_else(|_| "...".to_owned()))
}

/// `repr(value)`
pub(crate) fn represent(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_repr(&mut text, value, 0)?;
    Ok(text)
}

/// Writes `str(value)`.
pub(crate) fn write_display(out: &mut impl Write, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()),
        _ => return write_repr(out, value, 0),
    };
    written.map_err(Error::from)
}

fn write_repr(out: &mut impl Write, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MOST_DEEP {
        return Err(refuse(format!("a value is nested more than {MOST_DEEP} deep")));
    }
    match value.kind() {
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default())?,
        ValueKind::Undefined => out.write_str("Undefined")?,
        ValueKind::Number if !value.is_integer() => {
            out.write_str(&float::repr(f64::try_from(value.clone())?))?;
        }
        ValueKind::Map => write_map(out, value, depth)?,
        ValueKind::Seq | ValueKind::Iterable => write_list(out, value, depth)?,
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

fn write_map(out: &mut impl Write, value: &Value, depth: usize) -> Result<(), Error> {
    out.write_char('{')?;
    let pairs = value.as_object().and_then(minijinja::value::DynObject::try_iter_pairs);
    for (at, (key, item)) in pairs.into_iter().flatten().enumerate() {
        out.write_str(if at > 0 { ", " } else { "" })?;
        write_repr(out, &key, depth + 1)?;
        out.write_str(": ")?;
        write_repr(out, &item, depth + 1)?;
    }
    Ok(out.write_char('}')?)
}

fn write_list(out: &mut impl Write, value: &Value, depth: usize) -> Result<(), Error> {
    let is_tuple =
        value.downcast_object_ref::<List>().map_or_else(|| value.is_tuple(), List::is_tuple);
    let (open, close) = if is_tuple { ('(', ')') } else { ('[', ']') };
    out.write_char(open)?;
    let mut items = 0;
    for item in value.try_iter()?.checked() {
        out.write_str(if items > 0 { ", " } else { "" })?;
        write_repr(out, &item?, depth + 1)?;
        items += 1;
    }
    if is_tuple && items == 1 {
        out.write_char(',')?;
    }
    Ok(out.write_char(close)?)
}

/// A string in quotes: single ones, unless it has such and no double ones.
fn write_quoted(out: &mut impl Write, text: &str) -> std::fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if character == quote => write!(out, "\\{character}")?,
            _ if is_printable(character) => out.write_char(character)?,
            '\0'..='\u{ff}' => write!(out, "\\x{:02x}", u32::from(character))?,
            '\u{100}'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => write!(out, "\\U{:08x}", u32::from(character))?,
        }
    }
    out.write_char(quote)
}

/// What Python writes as it is: no control, format, private or separating character but the space.
/// Code points that are not assigned are taken to be printable.
fn is_printable(character: char) -> bool {
    let hidden = character.is_control()
        || (character != ' ' && character.is_whitespace())
        || matches!(character,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}');
    !hidden
}
