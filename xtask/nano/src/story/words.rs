//! The people and things of the stories.

use crate::draw::Draw;
use std::fmt;

/// A person, with the pronouns that go with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Person {
    name: &'static str,
    /// `He` or `She`.
    pub(super) he: &'static str,
    /// `his` or `her`.
    pub(super) his: &'static str,
    /// `him` or `her`.
    pub(super) him: &'static str,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const BOYS: &[&str] = &[
    "Tom", "Ben", "Sam", "Leo", "Max", "Noah", "Omar", "Paul", "Raj", "Hugo", "Adam", "Ivan",
    "Luke", "Kofi", "Carl", "Dan",
];
const GIRLS: &[&str] = &[
    "Anna", "Mia", "Lena", "Sara", "Zoe", "Nina", "Ruth", "Ella", "Maya", "Rosa", "Ivy", "Jane",
    "Lily", "Aiko", "Emma", "Kate",
];

/// Small things that people own and give away.
const THINGS: &[&str] = &[
    "apples", "marbles", "stickers", "books", "pencils", "cards", "shells", "stamps", "coins",
    "buttons", "beads", "toys", "balloons", "peaches", "candies", "flowers", "plums", "pens",
    "ribbons", "stones",
];

/// Things with a price.
const GOODS: &[&str] = &[
    "pens", "books", "shirts", "toys", "cakes", "mugs", "hats", "scarves", "balls", "plants",
    "pies", "tickets", "lamps", "bags",
];

pub(super) fn person(draw: &mut Draw) -> Person {
    if draw.one_in(2) {
        Person { name: draw.pick(BOYS), he: "He", his: "his", him: "him" }
    } else {
        Person { name: draw.pick(GIRLS), he: "She", his: "her", him: "her" }
    }
}

pub(super) fn two_people(draw: &mut Draw) -> (Person, Person) {
    let first = person(draw);
    loop {
        let second = person(draw);
        if second != first {
            return (first, second);
        }
    }
}

pub(super) fn three_people(draw: &mut Draw) -> (Person, Person, Person) {
    let (first, second) = two_people(draw);
    loop {
        let third = person(draw);
        if third != first && third != second {
            return (first, second, third);
        }
    }
}

pub(super) fn things(draw: &mut Draw) -> &'static str {
    draw.pick(THINGS)
}

pub(super) fn goods(draw: &mut Draw) -> &'static str {
    draw.pick(GOODS)
}

pub(super) fn two_goods(draw: &mut Draw) -> (&'static str, &'static str) {
    let first = goods(draw);
    loop {
        let second = goods(draw);
        if second != first {
            return (first, second);
        }
    }
}
