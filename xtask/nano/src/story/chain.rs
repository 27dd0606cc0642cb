//! One to four events that change how many things a person has.

use super::words::{Person, things, two_people};
use crate::draw::Draw;
use crate::problem::{Calculation, Problem, minus, over, plus, times, worked};

/// Above this many things no event adds any.
const PLENTY: u32 = 70;

pub(super) fn events(draw: &mut Draw) -> Problem {
    let (owner, friend) = two_people(draw);
    let thing = things(draw);
    let start = draw.number(8, 60);
    let mut told = vec![match draw.below(3) {
        0 => format!("{owner} has {start} {thing}."),
        1 => format!("{owner} starts with {start} {thing}."),
        _ => format!("There are {start} {thing} in {owner}'s box."),
    }];
    let mut working = Vec::new();
    let steps = [1, 2, 2, 2, 3, 3, 3, 4][draw.below(8)];
    let mut last = None;
    let mut count = start;
    for _ in 0..steps {
        let (event, calculation) = event(draw, owner, friend, count);
        told.push(event);
        count = calculation.value;
        working.push(format!("Then {owner} has {calculation} {thing}."));
        last = Some(calculation);
    }
    told.push(match draw.below(2) {
        0 => format!("How many {thing} does {owner} have now?"),
        _ => format!("How many {thing} are left in the end?"),
    });
    let last = last.expect("a chain has at least one event");
    worked(told.join(" "), &working, last)
}

fn event(draw: &mut Draw, owner: Person, friend: Person, count: u32) -> (String, Calculation) {
    let Person { he, him, .. } = owner;
    if count.is_multiple_of(2) && count >= 6 && draw.one_in(6) {
        return (format!("{he} gives half of them away."), over(count, 2));
    }
    if count <= 40 && draw.one_in(6) {
        return (format!("Then {he} gets twice as many.", he = he.to_lowercase()), times(count, 2));
    }
    if count >= 8 && (count > PLENTY || draw.one_in(2)) {
        let lost = draw.number(2, (count - 3).min(40));
        let told = match draw.below(4) {
            0 => format!("{he} loses {lost}."),
            1 => format!("{he} sells {lost} of them."),
            2 => format!("{he} gives {lost} to {friend}."),
            _ => format!("{he} gives away {lost}."),
        };
        return (told, minus(count, lost));
    }
    let more = draw.number(2, 30);
    let told = match draw.below(4) {
        0 => format!("{he} buys {more} more."),
        1 => format!("{he} finds {more} more."),
        2 => format!("{friend} gives {him} {more} more."),
        _ => format!("{he} gets {more} more."),
    };
    (told, plus(count, more))
}
