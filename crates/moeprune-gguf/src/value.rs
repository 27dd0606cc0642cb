//! Values of a header, as views of their bytes.

use crate::Error;

/// The types that the value of a key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the type it names")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the format's; a value of another type has no known size"
)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// In the order of the format's numbers, which begin at 0.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    pub(crate) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value; `None` of strings and arrays, which say it themselves.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// The fewest bytes that a value takes.
    pub(crate) fn least_size(self) -> usize {
        match self {
            Self::String => 8,
            Self::Array => 12,
            fixed => fixed.size().unwrap_or(1),
        }
    }
}

/// The value of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each is the type it names")]
#[expect(clippy::exhaustive_enums, reason = "as many as `ValueType` has")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Text as it is stored, which the format wants to be UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Values of one type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    count: usize,
    /// The values one after the other.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of all values.
    #[must_use]
    pub fn kind(self) -> ValueType {
        self.kind
    }

    /// How many values there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The values in their order.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut rest = self.bytes;
        (0..self.count).map_while(move |_| {
            let (value, after) = Value::split(self.kind, rest)?;
            rest = after;
            Some(value)
        })
    }
}

impl<'a> Value<'a> {
    /// Its type.
    #[must_use]
    pub fn kind(self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// It as a number, if it is an integer that is not negative.
    #[must_use]
    pub fn as_number(self) -> Option<u64> {
        match self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// It as text, if it is a string in UTF-8.
    #[must_use]
    pub fn as_text(self) -> Option<&'a str> {
        match self {
            Self::String(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A number as a value of an integer type.
    ///
    /// # Errors
    /// If the type is no integer, or has no such number. The error says so, without the key.
    pub(crate) fn integer(kind: ValueType, number: u64) -> Result<Self, String> {
        let value = match kind {
            ValueType::U8 => number.try_into().ok().map(Self::U8),
            ValueType::I8 => number.try_into().ok().map(Self::I8),
            ValueType::U16 => number.try_into().ok().map(Self::U16),
            ValueType::I16 => number.try_into().ok().map(Self::I16),
            ValueType::U32 => number.try_into().ok().map(Self::U32),
            ValueType::I32 => number.try_into().ok().map(Self::I32),
            ValueType::U64 => Some(Self::U64(number)),
            ValueType::I64 => number.try_into().ok().map(Self::I64),
            _ => return Err(format!("is {kind:?} and not an integer, so {number} cannot be set")),
        };
        value.ok_or_else(|| format!("is {kind:?}, which has no {number}"))
    }

    /// A value from all of its bytes. `None` if they are not of this type.
    pub(crate) fn of(kind: ValueType, bytes: &'a [u8]) -> Option<Self> {
        match kind {
            // The end of an array need not be looked for where it is the end of the bytes.
            ValueType::Array => {
                let (kind, count, bytes) = array_start(bytes)?;
                Some(Self::Array(Array { kind, count, bytes }))
            }
            _ => Self::split(kind, bytes).map(|(value, _)| value),
        }
    }

    /// A value at the beginning of some bytes, and the bytes after it.
    fn split(kind: ValueType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        match kind {
            ValueType::U8 => number(bytes, |b| Self::U8(u8::from_le_bytes(b))),
            ValueType::I8 => number(bytes, |b| Self::I8(i8::from_le_bytes(b))),
            ValueType::U16 => number(bytes, |b| Self::U16(u16::from_le_bytes(b))),
            ValueType::I16 => number(bytes, |b| Self::I16(i16::from_le_bytes(b))),
            ValueType::U32 => number(bytes, |b| Self::U32(u32::from_le_bytes(b))),
            ValueType::I32 => number(bytes, |b| Self::I32(i32::from_le_bytes(b))),
            ValueType::F32 => number(bytes, |b| Self::F32(f32::from_le_bytes(b))),
            ValueType::Bool => number(bytes, |[byte]| Self::Bool(byte != 0)),
            ValueType::U64 => number(bytes, |b| Self::U64(u64::from_le_bytes(b))),
            ValueType::I64 => number(bytes, |b| Self::I64(i64::from_le_bytes(b))),
            ValueType::F64 => number(bytes, |b| Self::F64(f64::from_le_bytes(b))),
            ValueType::String => {
                let (&length, rest) = bytes.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
                let (text, rest) = rest.split_at_checked(length)?;
                Some((Self::String(text), rest))
            }
            ValueType::Array => {
                let (kind, count, bytes) = array_start(bytes)?;
                let mut rest = bytes;
                for _ in 0..count {
                    rest = Self::split(kind, rest)?.1;
                }
                let bytes = &bytes[..bytes.len() - rest.len()];
                Some((Self::Array(Array { kind, count, bytes }), rest))
            }
        }
    }

    /// Appends the bytes of which [`of`](Self::of) makes it.
    pub(crate) fn append_to(self, bytes: &mut Vec<u8>) {
        match self {
            Self::U8(n) => bytes.extend(n.to_le_bytes()),
            Self::I8(n) => bytes.extend(n.to_le_bytes()),
            Self::U16(n) => bytes.extend(n.to_le_bytes()),
            Self::I16(n) => bytes.extend(n.to_le_bytes()),
            Self::U32(n) => bytes.extend(n.to_le_bytes()),
            Self::I32(n) => bytes.extend(n.to_le_bytes()),
            Self::F32(n) => bytes.extend(n.to_le_bytes()),
            Self::Bool(n) => bytes.push(n.into()),
            Self::U64(n) => bytes.extend(n.to_le_bytes()),
            Self::I64(n) => bytes.extend(n.to_le_bytes()),
            Self::F64(n) => bytes.extend(n.to_le_bytes()),
            Self::String(text) => {
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend(text);
            }
            Self::Array(array) => {
                append_array_start(array.kind, array.count, bytes);
                bytes.extend(array.bytes);
            }
        }
    }
}

/// The bytes of an array of these values.
///
/// # Errors
/// If one is of another type.
pub(crate) fn array_bytes(
    key: &str,
    kind: ValueType,
    values: &[Value<'_>],
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    append_array_start(kind, values.len(), &mut bytes);
    for (at, value) in values.iter().enumerate() {
        if value.kind() != kind {
            let reason = format!("value {at} is {:?} in an array of {kind:?}", value.kind());
            return Err(Error::key(key, reason));
        }
        value.append_to(&mut bytes);
    }
    Ok(bytes)
}

fn append_array_start(kind: ValueType, count: usize, bytes: &mut Vec<u8>) {
    bytes.extend(kind.id().to_le_bytes());
    bytes.extend((count as u64).to_le_bytes());
}

/// The type and number of an array's values, and the bytes from them on.
fn array_start(bytes: &[u8]) -> Option<(ValueType, usize, &[u8])> {
    let (&kind, rest) = bytes.split_first_chunk::<4>()?;
    let (&count, rest) = rest.split_first_chunk::<8>()?;
    let kind = ValueType::from_id(u32::from_le_bytes(kind))?;
    Some((kind, usize::try_from(u64::from_le_bytes(count)).ok()?, rest))
}

fn number<'a, const N: usize>(
    bytes: &'a [u8],
    of: impl Fn([u8; N]) -> Value<'a>,
) -> Option<(Value<'a>, &'a [u8])> {
    bytes.split_first_chunk::<N>().map(|(&number, rest)| (of(number), rest))
}
