//! Headers of pages.

use super::thrift::{Broken, Cursor, Type};

/// What a page is, and how its values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Levels and values packed together.
    Data,
    /// Levels, which are not packed, of these lengths (of repetition, of definition), and values, packed or not.
    DataWithLevels {
        repetition: usize,
        definition: usize,
        packed: bool,
    },
    Dictionary,
    /// Indices of pages, which are not read.
    Other,
}

/// A page's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) unpacked: usize,
    pub(super) packed: usize,
    pub(super) values: u64,
    pub(super) encoding: i64,
    /// How levels of definition and of repetition are stored, if there are any: writers name packed bits where there are none.
    pub(super) levels: (i64, i64),
    /// How many bytes the header has.
    pub(super) length: usize,
}

/// The encoding of levels by runs.
pub(super) const RUNS: i64 = 3;
/// More values in a page are refused: writers have some thousands, and a few bytes may say that there are billions.
const MOST: u64 = 1 << 24;

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let mut header = Self {
            kind: Kind::Other,
            unpacked: 0,
            packed: 0,
            values: 0,
            encoding: 0,
            levels: (RUNS, RUNS),
            length: 0,
        };
        let (mut kind, mut levels) = (None, (0, 0, true));
        let mut cursor = Cursor::of(bytes);
        cursor.structure(&mut |cursor, number, kind_of_field| {
            match (number, kind_of_field) {
                (1, Type::Integer) => kind = Some(cursor.integer()?),
                (2, Type::Integer) => header.unpacked = size(cursor)?,
                (3, Type::Integer) => header.packed = size(cursor)?,
                (5 | 7, Type::Structure) => header.data(cursor)?,
                (8, Type::Structure) => levels = header.data_with_levels(cursor)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        header.length = cursor.position();
        let (definition, repetition, packed) = levels;
        header.kind = match kind {
            Some(0) => Kind::Data,
            Some(2) => Kind::Dictionary,
            Some(3) => Kind::DataWithLevels { repetition, definition, packed },
            Some(_) => Kind::Other,
            None => return Err(Broken::because("a page that does not say what it is")),
        };
        match header.values > MOST {
            true => Err(Broken::because(format!("a page of {} values", header.values))),
            false => Ok(header),
        }
    }

    /// The header of data or of a dictionary.
    fn data(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Broken> {
        cursor.structure(&mut |cursor, number, kind| {
            if kind != Type::Integer {
                return Ok(false);
            }
            match number {
                1 => self.values = cursor.count()?,
                2 => self.encoding = cursor.integer()?,
                3 => self.levels.0 = cursor.integer()?,
                4 => self.levels.1 = cursor.integer()?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    /// The header of the second version; lengths of levels of definition and repetition, and whether values are packed.
    fn data_with_levels(
        &mut self,
        cursor: &mut Cursor<'_>,
    ) -> Result<(usize, usize, bool), Broken> {
        let mut levels = (0, 0, true);
        cursor.structure(&mut |cursor, number, kind| {
            match (number, kind) {
                (1, Type::Integer) => self.values = cursor.count()?,
                (4, Type::Integer) => self.encoding = cursor.integer()?,
                (5, Type::Integer) => levels.0 = size(cursor)?,
                (6, Type::Integer) => levels.1 = size(cursor)?,
                (7, Type::True) => levels.2 = true,
                (7, Type::False) => levels.2 = false,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(levels)
    }
}

fn size(cursor: &mut Cursor<'_>) -> Result<usize, Broken> {
    let size = cursor.count()?;
    usize::try_from(size).map_err(|_| Broken::because(format!("a size of {size} bytes")))
}
