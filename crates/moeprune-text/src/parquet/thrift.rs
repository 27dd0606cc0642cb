//! Thrift's compact protocol, as far as Parquet's headers need it, on bytes that may say anything.

/// What is wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The bytes end too early.
    End,
    /// Bytes where text is expected.
    NotText,
    /// Something else.
    Because(String),
}

impl Broken {
    pub(super) fn because(what: impl Into<String>) -> Self {
        Self::Because(what.into())
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::End => f.write_str("it ends too early"),
            Self::NotText => f.write_str("text that is no UTF-8"),
            Self::Because(what) => f.write_str(what),
        }
    }
}

/// Structures within structures; Parquet has six levels of them.
const DEEPEST: usize = 16;

/// The type of a field, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    True,
    False,
    Byte,
    Integer,
    Double,
    Bytes,
    List,
    Map,
    Structure,
}

impl Type {
    fn of(number: u8) -> Result<Self, Broken> {
        Ok(match number {
            1 => Self::True,
            2 => Self::False,
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Bytes,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Structure,
            _ => return Err(Broken::because(format!("a field of the unknown type {number}"))),
        })
    }
}

/// Where in the bytes of a header one is.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Reads a structure: `field` is called with the number and the type of each field and reads it, or returns `false` to have it skipped.
    pub(super) fn structure(
        &mut self,
        field: &mut dyn FnMut(&mut Self, i16, Type) -> Result<bool, Broken>,
    ) -> Result<(), Broken> {
        if self.depth == DEEPEST {
            return Err(Broken::because("structures within structures without end"));
        }
        self.depth += 1;
        let mut number = 0_i16;
        loop {
            let header = self.byte()?;
            if header == 0 {
                self.depth -= 1;
                return Ok(());
            }
            number = match header >> 4 {
                0 => i16::try_from(self.integer()?)
                    .map_err(|_| Broken::because("a field's number"))?,
                step => number
                    .checked_add(step.into())
                    .ok_or_else(|| Broken::because("a field's number"))?,
            };
            let kind = Type::of(header & 15)?;
            if !field(self, number, kind)? {
                self.skip(kind)?;
            }
        }
    }

    /// Reads a list: `item` is called once for each of its items, with their type.
    pub(super) fn list(
        &mut self,
        item: &mut dyn FnMut(&mut Self, Type) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => count.into(),
        };
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(Broken::End); // an item has a byte at least
        }
        let kind = Type::of(header & 15)?;
        for _ in 0..count {
            item(self, kind)?;
        }
        Ok(())
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = usize::try_from(self.varint()?).map_err(|_| Broken::End)?;
        let rest = &self.bytes[self.at..];
        let bytes = rest.get(..length).ok_or(Broken::End)?;
        self.at += length;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, Broken> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(super) fn integer(&mut self) -> Result<i64, Broken> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A number that counts something.
    pub(super) fn count(&mut self) -> Result<u64, Broken> {
        let value = self.integer()?;
        u64::try_from(value).map_err(|_| Broken::because(format!("a count of {value}")))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Broken::because("a number of more than 64 bits"))
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let byte = *self.bytes.get(self.at).ok_or(Broken::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, kind: Type) -> Result<(), Broken> {
        match kind {
            Type::True | Type::False => Ok(()),
            Type::Byte => self.byte().map(drop),
            Type::Integer => self.varint().map(drop),
            Type::Double => (0..8).try_for_each(|_| self.byte().map(drop)),
            Type::Bytes => self.bytes().map(drop),
            Type::List => self.list(&mut |cursor, kind| cursor.skip_item(kind)),
            Type::Map => self.skip_map(),
            Type::Structure => self.structure(&mut |_, _, _| Ok(false)),
        }
    }

    /// Booleans have a byte of their own in lists and maps. Lists in lists count as a level.
    fn skip_item(&mut self, kind: Type) -> Result<(), Broken> {
        if self.depth == DEEPEST {
            return Err(Broken::because("lists within lists without end"));
        }
        self.depth += 1;
        let skipped = match kind {
            Type::True | Type::False => self.byte().map(drop),
            kind => self.skip(kind),
        };
        self.depth -= 1;
        skipped
    }

    fn skip_map(&mut self) -> Result<(), Broken> {
        let count = self.varint()?;
        if count == 0 {
            return Ok(());
        }
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(Broken::End);
        }
        let kinds = self.byte()?;
        let (key, value) = (Type::of(kinds >> 4)?, Type::of(kinds & 15)?);
        for _ in 0..count {
            self.skip_item(key)?;
            self.skip_item(value)?;
        }
        Ok(())
    }
}
