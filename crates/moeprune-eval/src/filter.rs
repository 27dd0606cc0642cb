//! Reading the answer out of what the model wrote.

use regex::{Captures, Regex};

use crate::{Error, whitespace::strip};

/// What a filter extracts from a text without an answer.
pub const INVALID: &str = "[invalid]";

/// Which match of a pattern is the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pick {
    /// The first: the pattern is a phrase the model is to write once.
    First,
    /// The last: the pattern is any number, and the answer comes after the working.
    Last,
}

/// The harness's `regex` filter followed by `take_first`, under a name.
///
/// ```
/// # use moeprune_eval::{INVALID, Pick, RegexFilter};
/// let filter = RegexFilter::new("colour", "the sky is ([a-z]+)", Pick::First)?;
/// assert_eq!(filter.extract("I think the sky is blue today"), "blue");
/// assert_eq!(filter.extract("I do not know"), INVALID);
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RegexFilter {
    name: String,
    pattern: Regex,
    pick: Pick,
}

impl RegexFilter {
    /// A filter for a pattern in the syntax of the `regex` crate: Python's without look-around
    /// and back-references.
    ///
    /// # Errors
    ///
    /// If the pattern does not parse.
    pub fn new(name: impl Into<String>, pattern: &str, pick: Pick) -> Result<Self, Error> {
        let name = name.into();
        match Regex::new(pattern) {
            Ok(pattern) => Ok(Self { name, pattern, pick }),
            Err(source) => Err(Error::Pattern {
                filter: name,
                pattern: pattern.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// The name the filter's scores are reported under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first non-empty group of the picked match, stripped of white space; [`INVALID`] if
    /// there is none. A pattern without groups stands for the whole match.
    pub fn extract(&self, output: &str) -> String {
        let mut matches = self.pattern.captures_iter(output);
        let picked = match self.pick {
            Pick::First => matches.next(),
            Pick::Last => matches.last(),
        };
        let text = picked.and_then(|captures| self.answer(&captures));
        strip(text.unwrap_or(INVALID)).to_owned()
    }

    /// Python's `findall` yields the match, the one group or all groups, by their number.
    fn answer<'t>(&self, captures: &Captures<'t>) -> Option<&'t str> {
        let group = |i| captures.get(i).map_or("", |group| group.as_str());
        match self.pattern.captures_len() {
            1 => Some(group(0)),
            2 => Some(group(1)),
            count => (1..count).map(group).find(|text| !text.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, pick: Pick, output: &str, expected: &str) {
        let filter = RegexFilter::new("test", pattern, pick).unwrap();
        assert_eq!(filter.extract(output), expected, "{pattern} on {output:?}");
    }

    #[test]
    fn picks_the_first_or_the_last_match() {
        check("[0-9]+", Pick::First, "1 2 3", "1");
        check("[0-9]+", Pick::Last, "1 2 3", "3");
        check("[0-9]+", Pick::First, "none", INVALID);
        check("[0-9]+", Pick::Last, "", INVALID);
    }

    #[test]
    fn takes_the_first_group_that_is_not_empty() {
        check("x([0-9]*)", Pick::First, "x", ""); // one group: empty is an answer
        check("x([0-9]*)|y", Pick::First, "y", "");
        check("(a*)(b*)c", Pick::First, "bbc", "bb");
        check("(a*)(b*)c", Pick::First, "aabbc", "aa");
        check("(a*)(b*)c", Pick::First, "c", INVALID); // several: all empty is none
        check("(a)|(b)", Pick::Last, "a b", "b");
    }

    #[test]
    fn strips_the_answer() {
        check("is(.*)", Pick::First, "is  18 \u{1f}", "18");
    }

    #[test]
    fn refuses_what_is_not_a_pattern() {
        let error = RegexFilter::new("broken", "(", Pick::First).unwrap_err();
        assert_eq!(error.to_string(), "filter `broken`: `(` is not a regular expression");
    }
}
