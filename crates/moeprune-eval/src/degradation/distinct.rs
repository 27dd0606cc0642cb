//! How many of a text's groups of words are different ones.

use std::collections::HashSet;

/// The different groups of `N` words among all groups of words next to each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distinct<'a, const N: usize> {
    groups: HashSet<[&'a str; N]>,
    all: usize,
}

impl<'a, const N: usize> Distinct<'a, N> {
    /// Counts those of one more text; a group is of one text.
    pub(crate) fn add(&mut self, text: &'a str) {
        let words = words(text);
        for group in words.windows(N).filter_map(|group| <[&str; N]>::try_from(group).ok()) {
            self.groups.insert(group);
            self.all += 1;
        }
    }

    /// The share of different ones, above 0 and at most 1; nothing without groups.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.all > 0).then(|| self.groups.len() as f64 / self.all as f64)
    }
}

/// What stands between white space. A character of a script that is written without spaces (Chinese and Japanese) is a
/// word.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for mut rest in text.split_whitespace() {
        while let Some(length) = rest.chars().next().map(char::len_utf8) {
            let alone = rest.find(stands_alone);
            let (word, after) = rest.split_at(match alone {
                Some(0) => length,
                Some(start) => start,
                None => rest.len(),
            });
            words.push(word);
            rest = after;
        }
    }
    words
}

/// Whether a character is one of Chinese or Japanese writing: kana, ideographs and their punctuation.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3001}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff01}'..='\u{ff9f}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_texts() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text:?}");
        check("", &[]);
        check(" \n\t", &[]);
        check("a  b\nc", &["a", "b", "c"]);
        check("9*2 = 18.", &["9*2", "=", "18."]);
        check("三分之一。", &["三", "分", "之", "一", "。"]);
        check("共18个 eggs", &["共", "18", "个", "eggs"]);
        check("たまご", &["た", "ま", "ご"]);
        check("십팔 개", &["십팔", "개"]);
    }

    #[test]
    fn shares() {
        let check = |texts: &[&str], expected: Option<f64>| {
            let mut found = Distinct::<4>::default();
            texts.iter().for_each(|text| found.add(text));
            assert_eq!(found.share(), expected, "{texts:?}");
        };
        check(&[], None);
        check(&["a b c"], None);
        check(&["a b c d"], Some(1.0));
        check(&["a b c d e"], Some(1.0));
        check(&["a a a a a"], Some(0.5));
        // a b a b, b a b a, a b a b, b a b a
        check(&["a b a b a b a"], Some(0.5));
        check(&["a b c d", "a b c d"], Some(0.5));
        // No group reaches from one text into the next.
        check(&["a b", "c d"], None);
    }
}
