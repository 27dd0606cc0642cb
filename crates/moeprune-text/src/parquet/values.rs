//! Values of a column, written as JSON.

use std::ops::Range;

use super::{
    bits::{Differences, Runs},
    schema::Physical,
    thrift::Broken,
};

/// How values are stored in a page.
#[derive(Debug)]
pub(super) enum Values {
    Plain {
        at: usize,
    },
    /// Bits, the lowest first.
    Bits {
        bit: usize,
    },
    /// Numbers of entries of the dictionary.
    Indices(Runs),
    Booleans(Runs),
    Differences(Differences),
    /// Lengths of strings, and then the strings.
    Lengths {
        lengths: Differences,
        at: usize,
    },
    /// How much of the string before is kept, and what comes after it.
    Prefixes {
        kept: Differences,
        lengths: Differences,
        at: usize,
        last: Vec<u8>,
    },
}

/// The entries of a column's dictionary.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    page: Vec<u8>,
    entries: Vec<Range<usize>>,
}

/// The kind of a column's values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) physical: Physical,
    pub(super) unsigned: bool,
}

impl Kind {
    /// Where in `page` the plain value at byte `at` is.
    fn plain(self, page: &[u8], at: usize) -> Result<Range<usize>, Broken> {
        let (start, length) = match self.physical {
            Physical::Int32 | Physical::Float => (at, 4),
            Physical::Int64 | Physical::Double => (at, 8),
            Physical::Boolean => (at, 1),
            Physical::Bytes => (at + 4, length(page, at)?),
            Physical::Other => return Err(Broken::because("a column of a type that text has not")),
        };
        let range = start..start.checked_add(length).ok_or(Broken::End)?;
        page.get(range.clone()).ok_or(Broken::End)?;
        Ok(range)
    }

    /// Writes a plain value as JSON.
    fn write(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        let four = || bytes.try_into().map(i32::from_le_bytes).map_err(|_| Broken::End);
        let eight = || bytes.try_into().map(i64::from_le_bytes).map_err(|_| Broken::End);
        match self.physical {
            Physical::Int32 if self.unsigned => {
                out.extend(four()?.cast_unsigned().to_string().bytes())
            }
            Physical::Int32 => self.integer(four()?.into(), out),
            Physical::Int64 => self.integer(eight()?, out),
            Physical::Float => number(f32::from_bits(four()?.cast_unsigned()).into(), out),
            Physical::Double => number(f64::from_bits(eight()?.cast_unsigned()), out),
            Physical::Boolean => out.extend(if bytes == [0] { &b"false"[..] } else { b"true" }),
            Physical::Bytes => string(bytes, out)?,
            Physical::Other => out.extend(b"null"),
        }
        Ok(())
    }

    fn integer(self, value: i64, out: &mut Vec<u8>) {
        let text =
            if self.unsigned { value.cast_unsigned().to_string() } else { value.to_string() };
        out.extend(text.bytes());
    }
}

fn length(page: &[u8], at: usize) -> Result<usize, Broken> {
    let bytes = page.get(at..).and_then(<[u8]>::first_chunk).ok_or(Broken::End)?;
    Ok(u32::from_le_bytes(*bytes) as usize)
}

fn string(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let text = str::from_utf8(bytes).map_err(|_| Broken::NotText)?;
    serde_json::to_writer(out, text).map_err(|error| Broken::because(error.to_string()))
}

/// Numbers that JSON does not have are written as Python writes them.
fn number(value: f64, out: &mut Vec<u8>) {
    let text = if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        serde_json::Value::from(value).to_string()
    };
    out.extend(text.bytes());
}

impl Dictionary {
    /// Of a page with `count` plain values.
    pub(super) fn new(kind: Kind, page: Vec<u8>, count: u64) -> Result<Self, Broken> {
        let (mut entries, mut at) = (Vec::new(), 0);
        for _ in 0..count {
            let range = kind.plain(&page, at)?;
            at = range.end;
            entries.push(range);
        }
        Ok(Self { page, entries })
    }
}

const PLAIN: i64 = 0;
const RUNS: i64 = 3;

impl Values {
    /// Of at most `most` values in `page` from byte `at` on.
    pub(super) fn new(
        kind: Kind,
        encoding: i64,
        page: &[u8],
        at: usize,
        most: u64,
    ) -> Result<Self, Broken> {
        let bytes = kind.physical == Physical::Bytes;
        let integers = matches!(kind.physical, Physical::Int32 | Physical::Int64);
        Ok(match encoding {
            PLAIN if kind.physical == Physical::Boolean => Self::Bits { bit: at * 8 },
            PLAIN => Self::Plain { at },
            2 | 8 => match page.get(at) {
                Some(width) => Self::Indices(Runs::new(at + 1, page.len(), (*width).into())?),
                None => Self::Plain { at }, // all are null
            },
            RUNS if kind.physical == Physical::Boolean => {
                Self::Booleans(Runs::new(at + 4, page.len(), 1)?)
            }
            5 if integers => Self::Differences(Differences::new(page, at, most)?),
            6 if bytes => {
                let lengths = Differences::new(page, at, most)?;
                let at = lengths.clone().end(page)?;
                Self::Lengths { lengths, at }
            }
            7 if bytes => {
                let kept = Differences::new(page, at, most)?;
                let lengths = Differences::new(page, kept.clone().end(page)?, most)?;
                let at = lengths.clone().end(page)?;
                Self::Prefixes { kept, lengths, at, last: Vec::new() }
            }
            _ => {
                return Err(Broken::because(format!(
                    "values in encoding {encoding}, which is not read; write the file again with plain values"
                )));
            }
        })
    }

    /// Writes the next value as JSON.
    pub(super) fn write_next(
        &mut self,
        kind: Kind,
        page: &[u8],
        dictionary: Option<&Dictionary>,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        match self {
            Self::Plain { at } => {
                let range = kind.plain(page, *at)?;
                *at = range.end;
                kind.write(&page[range], out)
            }
            Self::Bits { bit } => {
                let byte = page.get(*bit / 8).ok_or(Broken::End)?;
                let set = byte >> (*bit % 8) & 1;
                *bit += 1;
                kind.write(&[set], out)
            }
            Self::Indices(runs) => {
                let dictionary =
                    dictionary.ok_or_else(|| Broken::because("indices without a dictionary"))?;
                let index = runs.next(page)? as usize;
                let entry = dictionary.entries.get(index);
                let entry = entry.ok_or_else(|| {
                    let count = dictionary.entries.len();
                    Broken::because(format!("entry {index} of a dictionary of {count}"))
                })?;
                kind.write(&dictionary.page[entry.clone()], out)
            }
            Self::Booleans(runs) => kind.write(&[u8::from(runs.next(page)? != 0)], out),
            Self::Differences(values) => {
                let value = values.next(page)?;
                match kind.physical {
                    Physical::Int32 => kind.write(&(value as i32).to_le_bytes(), out),
                    _ => kind.write(&value.to_le_bytes(), out),
                }
            }
            Self::Lengths { lengths, at } => {
                let bytes = slice(page, at, lengths.next(page)?)?;
                kind.write(bytes, out)
            }
            Self::Prefixes { kept, lengths, at, last } => {
                let kept = usize::try_from(kept.next(page)?).map_err(|_| Broken::End)?;
                if kept > last.len() {
                    return Err(Broken::because("more of a string than there is"));
                }
                last.truncate(kept);
                last.extend(slice(page, at, lengths.next(page)?)?);
                kind.write(last, out)
            }
        }
    }
}

/// The next `length` bytes of a page.
fn slice<'a>(page: &'a [u8], at: &mut usize, length: i64) -> Result<&'a [u8], Broken> {
    let length = usize::try_from(length).map_err(|_| Broken::End)?;
    let end = at.checked_add(length).ok_or(Broken::End)?;
    let bytes = page.get(*at..end).ok_or(Broken::End)?;
    *at = end;
    Ok(bytes)
}
