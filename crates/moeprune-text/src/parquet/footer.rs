//! What a file's footer says: its columns and where their pages are.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use super::{
    codec::Codec,
    schema::{Element, Field, Physical, Repetition, tree},
    thrift::{Broken, Cursor, Type},
};

const MAGIC: &[u8] = b"PAR1";
/// A longer footer is refused; those of text have kilobytes.
const LONGEST: u64 = 64 << 20;

/// A file's columns and groups of rows.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) fields: Vec<Field>,
    pub(super) groups: Vec<Group>,
}

/// Rows whose columns lie together.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) rows: u64,
    /// One per leaf of the schema, in its order.
    pub(super) chunks: Vec<Chunk>,
}

/// The pages of one column in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) codec: i64,
    pub(super) values: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Footer {
    pub(super) fn read(mut file: &File) -> Result<Self, Broken> {
        let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        let mut tail = [0; 8];
        if length >= 12 {
            read_at(file, length - 8, &mut tail)?;
        }
        let [a, b, c, d, magic @ ..] = tail;
        if magic == *b"PARE" {
            return Err(Broken::because("its columns are encrypted"));
        }
        let size = u64::from(u32::from_le_bytes([a, b, c, d]));
        if magic != MAGIC || size > length - 12 {
            return Err(Broken::because("it is cut short or damaged; download or copy it again"));
        }
        if size > LONGEST {
            return Err(Broken::because(format!("a footer of {size} bytes, more than any has")));
        }
        let mut bytes = vec![0; size as usize];
        let start = length - 8 - size;
        read_at(file, start, &mut bytes)?;
        parse(&bytes, start)
    }
}

pub(super) fn read_at(mut file: &File, at: u64, bytes: &mut [u8]) -> Result<(), Broken> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes)).map_err(unreadable)
}

fn unreadable(error: std::io::Error) -> Broken {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Broken::End,
        _ => Broken::because(error.to_string()),
    }
}

/// Reads the footer, before which, at byte `limit`, all pages end.
fn parse(bytes: &[u8], limit: u64) -> Result<Footer, Broken> {
    let (mut elements, mut groups) = (Vec::new(), Vec::new());
    Cursor::of(bytes).structure(&mut |cursor, number, kind| {
        match (number, kind) {
            (2, Type::List) => cursor.list(&mut |cursor, _| {
                elements.push(element(cursor)?);
                Ok(())
            })?,
            (4, Type::List) => cursor.list(&mut |cursor, _| {
                groups.push(group(cursor, limit)?);
                Ok(())
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (fields, leaves) = tree(&elements)?;
    match groups.iter().find(|group| group.chunks.len() != leaves) {
        Some(group) => Err(Broken::because(format!(
            "a group of rows with {} columns where the schema has {leaves}",
            group.chunks.len()
        ))),
        None => Ok(Footer { fields, groups }),
    }
}

fn element(cursor: &mut Cursor<'_>) -> Result<Element, Broken> {
    let mut element = Element::default();
    cursor.structure(&mut |cursor, number, kind| {
        match (number, kind) {
            (1, Type::Integer) => element.physical = Some(Physical::of(cursor.integer()?)?),
            (3, Type::Integer) => element.repetition = Repetition::of(cursor.integer()?)?,
            (4, Type::Bytes) => element.name = cursor.text()?,
            (5, Type::Integer) => element.children = cursor.count()?,
            (6, Type::Integer) => element.converted = Some(cursor.integer()?),
            (10, Type::Structure) => {
                cursor.structure(&mut |_, number, _| {
                    element.logical = Some(number);
                    Ok(false)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

fn group(cursor: &mut Cursor<'_>, limit: u64) -> Result<Group, Broken> {
    let mut group = Group { rows: 0, chunks: Vec::new() };
    cursor.structure(&mut |cursor, number, kind| {
        match (number, kind) {
            (1, Type::List) => cursor.list(&mut |cursor, _| {
                group.chunks.push(chunk(cursor, limit)?);
                Ok(())
            })?,
            (3, Type::Integer) => group.rows = cursor.count()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(group)
}

fn chunk(cursor: &mut Cursor<'_>, limit: u64) -> Result<Chunk, Broken> {
    let mut found = None;
    cursor.structure(&mut |cursor, number, kind| {
        match (number, kind) {
            (1, Type::Bytes) => {
                return Err(Broken::because("columns in another file, which is not read"));
            }
            (3, Type::Structure) => found = Some(metadata(cursor)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (chunk, length) = found.ok_or_else(|| Broken::because("a column without its place"))?;
    let end = chunk.start.checked_add(length).filter(|end| *end <= limit);
    let end =
        end.ok_or_else(|| Broken::because("a column that goes beyond the end of the file"))?;
    Ok(Chunk { end, ..chunk })
}

/// A column's place, without its end, and its length.
fn metadata(cursor: &mut Cursor<'_>) -> Result<(Chunk, u64), Broken> {
    let mut chunk = Chunk { codec: 0, values: 0, start: 0, end: 0 };
    let (mut length, mut dictionary) = (0, None);
    cursor.structure(&mut |cursor, number, kind| {
        if kind != Type::Integer {
            return Ok(false);
        }
        match number {
            4 => chunk.codec = cursor.integer()?,
            5 => chunk.values = cursor.count()?,
            7 => length = cursor.count()?,
            9 => chunk.start = cursor.count()?,
            11 => dictionary = Some(cursor.count()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if let Some(at) = dictionary.filter(|at| *at > 0) {
        chunk.start = chunk.start.min(at);
    }
    Ok((chunk, length))
}

impl Chunk {
    /// What its pages are packed with.
    pub(super) fn codec(&self) -> Result<Codec, Broken> {
        Codec::of(self.codec)
    }
}
