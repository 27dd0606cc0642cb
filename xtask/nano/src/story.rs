//! The word problems: each story draws its people, things and numbers.
//!
//! The working is a function of the question (no free choice of words in it), so that what a model
//! has to learn is which numbers to combine and how.

mod chain;
mod money;
mod people;
mod sharing;
mod words;
mod work;

use crate::draw::Draw;
use crate::problem::Problem;

type Story = fn(&mut Draw) -> Problem;

/// Two halves of the stories that have no template in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Money and work.
    Earning,
    /// Things that change hands, people and sharing.
    Having,
}

/// A problem of a random story.
pub fn tell(draw: &mut Draw) -> Problem {
    tell_with_kind(draw).1
}

/// As [`tell`], with the kind of the story.
pub fn tell_with_kind(draw: &mut Draw) -> (Kind, Problem) {
    use Kind::{Earning, Having};
    // A chain of events is itself many stories.
    if draw.one_in(5) {
        return (Having, chain::events(draw));
    }
    let stories = [
        (Earning, money::STORIES),
        (Having, people::STORIES),
        (Having, sharing::STORIES),
        (Earning, work::STORIES),
    ];
    let total = stories.iter().map(|(_, theme)| theme.len()).sum();
    let mut index = draw.below(total);
    for (kind, theme) in stories {
        if let Some(story) = theme.get(index) {
            return (kind, story(draw));
        }
        index -= theme.len();
    }
    unreachable!("the index lies below the number of stories")
}
