//! One of several parts that work is cut into.

use std::{fmt, num::NonZero, ops::Range, str::FromStr};

use crate::Error;

/// Part `I` of `N`, from 1: written `I/N`.
///
/// Parts are ranges of whole things (blocks of text, layers) that differ in size by one at most, in order and
/// without gaps, so that all parts of one `N` are the whole.
///
/// ```
/// # use moeprune_core::PartOf;
/// let part: PartOf = "2/3".parse()?;
/// assert_eq!((part.index(), part.of()), (2, 3));
/// assert_eq!(part.range(128), 42..85);
/// assert_eq!(part.to_string(), "2/3");
/// assert!("0/3".parse::<PartOf>().is_err() && "4/3".parse::<PartOf>().is_err());
/// # Ok::<(), moeprune_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartOf {
    of: NonZero<usize>,
    /// From 1 to `of`.
    index: NonZero<usize>,
}

impl PartOf {
    /// The most parts: more than any scheduler starts.
    pub const MOST: usize = 1 << 20;

    /// The whole, in one part.
    pub const WHOLE: Self = Self { of: NonZero::<usize>::MIN, index: NonZero::<usize>::MIN };

    /// Part `index`, from 1, of `of`.
    ///
    /// # Errors
    /// [`Error::Part`] if there is no such part.
    pub fn new(index: usize, of: usize) -> Result<Self, Error> {
        let wrong = || Error::Part(format!("{index}/{of}"));
        if index > of || of > Self::MOST {
            return Err(wrong());
        }
        let index = NonZero::new(index).ok_or_else(wrong)?;
        Ok(Self { of: NonZero::new(of).ok_or_else(wrong)?, index })
    }

    /// All parts of `of`, in order.
    ///
    /// # Errors
    /// [`Error::Part`] if `of` is 0 or too many.
    pub fn all(of: usize) -> Result<impl ExactSizeIterator<Item = Self>, Error> {
        let Self { of: parts, .. } = Self::new(1, of)?;
        let part = move |before: usize| Self {
            of: parts,
            index: NonZero::<usize>::MIN.saturating_add(before),
        };
        Ok((0..of).map(part))
    }

    /// Which part, from 1.
    #[must_use]
    pub fn index(self) -> usize {
        self.index.get()
    }

    /// Number of parts.
    #[must_use]
    pub fn of(self) -> usize {
        self.of.get()
    }

    /// Which of `total` things are of this part. Empty for some parts if there are more parts than things.
    #[must_use]
    pub fn range(self, total: usize) -> Range<usize> {
        let at = |parts: usize| {
            let place = parts as u128 * total as u128 / self.of.get() as u128;
            usize::try_from(place).unwrap_or(total)
        };
        at(self.index() - 1)..at(self.index())
    }
}

impl FromStr for PartOf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let parsed =
            text.split_once('/').and_then(|(index, of)| Some((number(index)?, number(of)?)));
        let (index, of) = parsed.ok_or_else(|| Error::Part(text.chars().take(40).collect()))?;
        Self::new(index, of)
    }
}

impl fmt::Display for PartOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_parts_that_exist_are_parsed() {
        let check = |text: &str, expected: Option<(usize, usize)>| {
            let part = text.parse::<PartOf>().ok().map(|part| (part.index(), part.of()));
            assert_eq!(part, expected, "{text}");
        };
        check("1/1", Some((1, 1)));
        check("16/16", Some((16, 16)));
        check("1048576/1048576", Some((1 << 20, 1 << 20)));
        for wrong in [
            "", "/", "1", "1/", "/1", "0/1", "2/1", "1/0", "0/0", "-1/2", "+1/2", "1/2/3", " 1/2",
            "a/b",
        ] {
            check(wrong, None);
        }
        check("1/99999999999999999999999999", None);
        check("1/1048577", None);
    }

    proptest! {
        #[test]
        fn parts_are_the_whole_and_alike(total in 0_usize..5000, of in 1_usize..200) {
            let ranges: Vec<_> = PartOf::all(of).unwrap().map(|part| part.range(total)).collect();
            prop_assert_eq!(ranges.len(), of);
            prop_assert_eq!(ranges[0].start, 0);
            prop_assert_eq!(ranges[of - 1].end, total);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = || ranges.iter().map(Range::len);
            prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
    }
}
