//! Where two windows are joined.

use super::window::{Token, Window};

/// Tokens on each side of a joint that are the same in both windows.
pub(super) const AROUND: usize = 4;

/// Where joints may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joints {
    /// Between any two tokens, though rather between words.
    Anywhere,
    /// Between words, and within words that have at least so many bytes.
    InWordsOf(usize),
    /// Between words.
    BetweenWords,
}

/// The number of a token of `left` and of one of `right` that are the same, as are those around them. The tokens before come from `left`,
/// and these two and those after from `right`.
///
/// Of the places that do and that `may_be`, the one nearest the middle of the longest run is taken.
pub(super) fn joint(
    left: &Window,
    right: &Window,
    joints: Joints,
    may_be: impl Fn(u64) -> bool,
) -> Option<(usize, usize)> {
    if !left.is_placed || !right.is_placed {
        return None;
    }
    let (i, j, length) = longest_run(left, right)?;
    let run = &right.tokens[j..j + length];
    let middle = length / 2;
    let places = AROUND..(length + 1).checked_sub(AROUND)?;
    // Tokens with the same beginning are bytes of a character, and of the same characters if these repeat.
    let begins = |at: usize| run[at - 1].start < run[at].start;
    let mut places: Vec<usize> = places.filter(|&at| begins(at) && may_be(run[at].start)).collect();
    places.sort_by_key(|&at| at.abs_diff(middle));
    let between_words = places.iter().find(|&&at| run[at].begins_word);
    let at = *between_words.or_else(|| places.first().filter(|_| in_one_word(run, joints)))?;
    Some((i + at, j + at))
}

/// Whether a run within a word is enough.
fn in_one_word(run: &[Token], joints: Joints) -> bool {
    let bytes = match (run.first(), run.last()) {
        (Some(first), Some(last)) => last.end.saturating_sub(first.start),
        _ => 0,
    };
    match joints {
        Joints::Anywhere => true,
        Joints::InWordsOf(least) => {
            !run[1..].iter().any(|token| token.begins_word) && bytes >= least as u64
        }
        Joints::BetweenWords => false,
    }
}

/// The first token in both windows and the length of the longest run of the same tokens that both have not yet given away.
fn longest_run(left: &Window, right: &Window) -> Option<(usize, usize, usize)> {
    let (a, b) = (&left.tokens, &right.tokens);
    let mut best: Option<(usize, usize, usize)> = None;
    let mut i = left.joint.max(a.partition_point(|token| token.start < right.span.start));
    // The first token of a window begins where the window does, which says nothing.
    let mut j = 1;
    while i < a.len() && j < b.len() {
        if a[i].start != b[j].start {
            if a[i].start < b[j].start {
                i += 1
            } else {
                j += 1
            }
            continue;
        }
        let same = a[i..].iter().zip(&b[j..]).take_while(|(a, b)| a == b).count();
        if same > best.map_or(0, |(_, _, length)| length) {
            best = Some((i, j, same));
        }
        // Tokens with the same beginning are bytes of one character: all of them are one place.
        let (at_a, at_b) = (i + same, j + same);
        let start = a[i].start.max(a[..at_a].last().map_or(0, |token| token.start));
        i = at_a + a[at_a..].iter().take_while(|token| token.start <= start).count();
        j = at_b + b[at_b..].iter().take_while(|token| token.start <= start).count();
    }
    best
}
