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

/// A problem of a random story.
pub fn tell(draw: &mut Draw) -> Problem {
    // A chain of events is itself many stories.
    if draw.one_in(5) {
        return chain::events(draw);
    }
    let stories = [money::STORIES, people::STORIES, sharing::STORIES, work::STORIES];
    let total = stories.iter().map(|theme| theme.len()).sum();
    let mut index = draw.below(total);
    for theme in stories {
        if let Some(story) = theme.get(index) {
            return story(draw);
        }
        index -= theme.len();
    }
    unreachable!("the index lies below the number of stories")
}
