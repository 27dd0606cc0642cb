//! Rows of columns as JSON.

use super::{
    column::Column,
    schema::{Field, Kind, Repetition},
    thrift::Broken,
};

/// A longer row is refused: it is one record, which is held and tokenised as a whole.
const LONGEST: usize = 256 << 20;

/// Columns by the number of their leaf; those that are not read are `None`.
pub(super) type Columns = [Option<Column>];

/// What was written: all, or something incomplete, as a value is no text and its column is lenient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    All,
    Part,
}

/// Writes one item of what repeats.
type Item<'a> = &'a dyn Fn(&mut Columns, &mut Vec<u8>) -> Result<Wrote, Broken>;

/// Writes what `field` has in the current row, under its name, to an object that is open. What is no text is left out.
pub(super) fn write_named(
    field: &Field,
    columns: &mut Columns,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    let before = out.len();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    key(&field.name, out)?;
    if write(field, columns, out)? == Wrote::Part {
        out.truncate(before);
    }
    Ok(())
}

/// Writes what `field` has in the current row, or item, to `out` as JSON.
fn write(field: &Field, columns: &mut Columns, out: &mut Vec<u8>) -> Result<Wrote, Broken> {
    match field.repetition {
        Repetition::Required => write_present(field, columns, out),
        Repetition::Optional if is_there(field, columns)? => write_present(field, columns, out),
        Repetition::Optional => {
            skip(field, columns)?;
            out.extend(b"null");
            Ok(Wrote::All)
        }
        Repetition::Repeated => {
            let item =
                |columns: &mut Columns, out: &mut Vec<u8>| write_present(field, columns, out);
            write_items(field, columns, out, (b'[', b']'), &item)
        }
    }
}

/// Writes a field that is there, once.
fn write_present(field: &Field, columns: &mut Columns, out: &mut Vec<u8>) -> Result<Wrote, Broken> {
    if out.len() > LONGEST {
        return Err(Broken::because("a row of more than 256 MiB"));
    }
    match &field.kind {
        Kind::Leaf { .. } => {
            let column = column(columns, field.leaves.0)?;
            match column.write_value(out) {
                Err(Broken::NotText) if column.lenient => Ok(Wrote::Part),
                written => written.map(|()| Wrote::All),
            }
        }
        Kind::Structure(fields) => {
            out.push(b'{');
            fields.iter().try_for_each(|inner| write_named(inner, columns, out))?;
            out.push(b'}');
            Ok(Wrote::All)
        }
        Kind::List { repeated, inner } => {
            let item = |columns: &mut Columns, out: &mut Vec<u8>| match &repeated.kind {
                Kind::Structure(fields) if *inner => write(&fields[0], columns, out),
                _ => write_present(repeated, columns, out),
            };
            write_items(repeated, columns, out, (b'[', b']'), &item)
        }
        Kind::Map(repeated) => {
            let item =
                |columns: &mut Columns, out: &mut Vec<u8>| write_pair(repeated, columns, out);
            write_items(repeated, columns, out, (b'{', b'}'), &item)
        }
    }
}

/// Writes what repeats, by `item`, between brackets.
fn write_items(
    repeated: &Field,
    columns: &mut Columns,
    out: &mut Vec<u8>,
    (open, close): (u8, u8),
    item: Item<'_>,
) -> Result<Wrote, Broken> {
    out.push(open);
    if !is_there(repeated, columns)? {
        skip(repeated, columns)?;
        out.push(close);
        return Ok(Wrote::All);
    }
    let mut wrote = Wrote::All;
    loop {
        if item(columns, out)? == Wrote::Part {
            wrote = Wrote::Part;
        }
        let next = column(columns, repeated.leaves.0)?.peek()?;
        if next.is_none_or(|levels| levels.repetition < repeated.depth) {
            out.push(close);
            return Ok(wrote);
        }
        out.push(b',');
        if out.len() > LONGEST {
            return Err(Broken::because("a row of more than 256 MiB"));
        }
    }
}

/// Writes an entry of a map: a key, which becomes a string, and its value.
fn write_pair(pair: &Field, columns: &mut Columns, out: &mut Vec<u8>) -> Result<Wrote, Broken> {
    let Kind::Structure(fields) = &pair.kind else {
        return Err(Broken::because("a map without keys"));
    };
    let mut name = Vec::new();
    let named = write(&fields[0], columns, &mut name)?;
    match name.first() {
        Some(b'"') => out.append(&mut name),
        _ => key_of_bytes(&name, out),
    }
    out.push(b':');
    let wrote = match fields.get(1) {
        Some(value) => write(value, columns, out)?,
        None => {
            out.extend(b"null");
            Wrote::All
        }
    };
    Ok(if named == Wrote::Part { named } else { wrote })
}

fn key(name: &str, out: &mut Vec<u8>) -> Result<(), Broken> {
    serde_json::to_writer(&mut *out, name).map_err(|error| Broken::because(error.to_string()))?;
    out.push(b':');
    Ok(())
}

/// A key that is a number or the like, in quotes.
fn key_of_bytes(name: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend(name.iter().filter(|b| !matches!(b, b'"' | b'\\')));
    out.push(b'"');
}

/// Whether the next value of a field's first leaf goes as deep as the field.
fn is_there(field: &Field, columns: &mut Columns) -> Result<bool, Broken> {
    let next = column(columns, field.leaves.0)?.peek()?;
    let levels = next.ok_or_else(|| Broken::because("fewer values than rows"))?;
    Ok(levels.definition >= field.definition)
}

/// Takes the place of a field that is not there from each of its leaves.
fn skip(field: &Field, columns: &mut Columns) -> Result<(), Broken> {
    let (first, count) = field.leaves;
    (first..first + count).try_for_each(|leaf| column(columns, leaf)?.skip())
}

fn column(columns: &mut Columns, leaf: usize) -> Result<&mut Column, Broken> {
    columns
        .get_mut(leaf)
        .and_then(Option::as_mut)
        .ok_or_else(|| Broken::because("a column that is not read"))
}
