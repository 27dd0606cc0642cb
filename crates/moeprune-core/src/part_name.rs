//! Names of tensors that only a descriptor knows.

use std::{fmt, str};

use crate::Error;

/// The name that a descriptor gives to a tensor of a kind that cannot be run, for example
/// `attention.kv_a_proj`.
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
        let is_word = |word: &str| {
            let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
            !word.is_empty() && word.bytes().all(known)
        };
        if text.len() > Self::MAX || !text.contains('.') || !text.split('.').all(is_word) {
            return Err(Error::LinearName(text.to_owned()));
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX);
        str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
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
