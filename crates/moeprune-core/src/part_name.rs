//! Names of tensors by what they are called.

use std::{fmt, str};

use crate::Error;

/// The name of a tensor that only one kind of part has, or that a descriptor names for a kind that
/// cannot be run: for example `attention.kv_a`.
///
/// At least two words with a dot between, of lower-case ASCII letters, digits and `_`, and at most
/// [`MAX`](Self::MAX) bytes. It lies in place, so that what names a tensor can be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    /// Padded with zeros, which no name contains: the order is that of the text.
    bytes: [u8; Self::MAX],
}

impl PartName {
    /// Longest name, in bytes.
    pub const MAX: usize = 40;

    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::LinearName`] if it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_name(text.as_bytes()) {
            Ok(Self::padded(text.as_bytes()))
        } else {
            Err(Error::LinearName(text.to_owned()))
        }
    }

    /// A name that is known when the program is compiled, where a wrong one is an error.
    ///
    /// # Panics
    /// If it is no name and this is not evaluated at compile time.
    #[must_use]
    pub const fn constant(text: &'static str) -> Self {
        assert!(is_name(text.as_bytes()), "no name of a part");
        Self::padded(text.as_bytes())
    }

    const fn padded(text: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut i = 0;
        while i < text.len() {
            bytes[i] = text[i];
            i += 1;
        }
        Self { bytes }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX);
        str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

/// Words of known characters with single dots between, at least two.
const fn is_name(text: &[u8]) -> bool {
    let (mut i, mut dots, mut word) = (0, 0, 0);
    while i < text.len() {
        match text[i] {
            b'.' if word == 0 => return false,
            b'.' => (dots, word) = (dots + 1, 0),
            b'a'..=b'z' | b'0'..=b'9' | b'_' => word += 1,
            _ => return false,
        }
        i += 1;
    }
    text.len() <= PartName::MAX && dots > 0 && word > 0
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
