//! Comparing what two or three people have, and how old they are.

use super::Story;
use super::words::{things, three_people, two_people};
use crate::draw::Draw;
use crate::problem::{Problem, minus, over, plus, times, worked};

pub(super) const STORIES: &[Story] = &[
    difference,
    more_together,
    fewer_together,
    times_together,
    half_together,
    three_in_a_row,
    three_sum,
    older_later,
    twice_the_age,
    equal_shares,
];

fn difference(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let many = draw.number(15, 90);
    let few = draw.number(3, many - 2);
    let gap = minus(many, few);
    let question = match draw.below(2) {
        0 => format!(
            "{a} has {many} {thing} and {b} has {few}. How many more {thing} does {a} have than {b}?"
        ),
        _ => format!(
            "{b} has {few} {thing}. {a} has {many}. How many {thing} does {b} need to have as many as {a}?"
        ),
    };
    worked(question, &[format!("The difference is {gap} {thing}.")], gap)
}

fn more_together(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let (has, more) = (draw.number(3, 45), draw.number(2, 20));
    let other = plus(has, more);
    let total = plus(has, other.value);
    let question = match draw.below(2) {
        0 => format!(
            "{a} has {has} {thing}. {b} has {more} more than {a}. How many {thing} do they have together?"
        ),
        _ => format!(
            "{b} has {more} more {thing} than {a}, who has {has}. How many {thing} do they have in total?"
        ),
    };
    let working =
        [format!("{b} has {other} {thing}."), format!("Together they have {total} {thing}.")];
    worked(question, &working, total)
}

fn fewer_together(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let has = draw.number(10, 60);
    let fewer = draw.number(2, (has - 2).min(25));
    let other = minus(has, fewer);
    let total = plus(has, other.value);
    let question = match draw.below(2) {
        0 => format!(
            "{a} has {has} {thing}. {b} has {fewer} fewer than {a}. How many {thing} do they have together?"
        ),
        _ => format!(
            "{b} has {fewer} fewer {thing} than {a}, who has {has}. How many {thing} do they have in total?"
        ),
    };
    let working =
        [format!("{b} has {other} {thing}."), format!("Together they have {total} {thing}.")];
    worked(question, &working, total)
}

fn times_together(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let (has, factor) = (draw.number(2, 12), draw.number(2, 6));
    let other = times(has, factor);
    let total = plus(has, other.value);
    let question = match draw.below(2) {
        0 => format!(
            "{a} has {has} {thing}. {b} has {factor} times as many. How many {thing} do they have together?"
        ),
        _ => format!(
            "{b} found {factor} times as many {thing} as {a}. {a} found {has}. How many {thing} did they find in total?"
        ),
    };
    let working =
        [format!("{b} has {other} {thing}."), format!("Together they have {total} {thing}.")];
    worked(question, &working, total)
}

fn half_together(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let has = 2 * draw.number(3, 35);
    let other = over(has, 2);
    let total = plus(has, other.value);
    let question = format!(
        "{a} has {has} {thing}. {b} has half as many. How many {thing} do they have together?"
    );
    let working =
        [format!("{b} has {other} {thing}."), format!("Together they have {total} {thing}.")];
    worked(question, &working, total)
}

fn three_in_a_row(draw: &mut Draw) -> Problem {
    let (a, b, c) = three_people(draw);
    let thing = things(draw);
    let (has, factor, more) = (draw.number(2, 10), draw.number(2, 3), draw.number(2, 12));
    let second = times(has, factor);
    let third = plus(second.value, more);
    let pair = plus(has, second.value);
    let total = plus(pair.value, third.value);
    let question = format!(
        "{a} has {has} {thing}. {b} has {factor} times as many as {a}. {c} has {more} more than {b}. How many {thing} do they have in total?"
    );
    let working = [
        format!("{b} has {second} {thing}."),
        format!("{c} has {third} {thing}."),
        format!("{a} and {b} have {pair} {thing}."),
        format!("Together they have {total} {thing}."),
    ];
    worked(question, &working, total)
}

fn three_sum(draw: &mut Draw) -> Problem {
    let (a, b, c) = three_people(draw);
    let thing = things(draw);
    let (x, y, z) = (draw.number(3, 35), draw.number(3, 30), draw.number(3, 30));
    let pair = plus(x, y);
    let total = plus(pair.value, z);
    let question = match draw.below(2) {
        0 => format!(
            "{a} has {x} {thing}, {b} has {y} and {c} has {z}. How many {thing} do they have in total?"
        ),
        _ => format!(
            "{a} finds {x} {thing}. {b} finds {y}. {c} finds {z}. How many {thing} do they find together?"
        ),
    };
    let working = [
        format!("{a} and {b} have {pair} {thing}."),
        format!("Together they have {total} {thing}."),
    ];
    worked(question, &working, total)
}

fn older_later(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let (age, gap, years) = (draw.number(4, 40), draw.number(2, 15), draw.number(2, 20));
    let (now, what) = if draw.one_in(2) {
        (plus(age, gap), "older")
    } else {
        let gap = gap.min(age - 2);
        return younger_later(age, gap, years, &a.to_string(), &b.to_string());
    };
    let later = plus(now.value, years);
    let question = format!(
        "{a} is {age} years old. {b} is {gap} years {what} than {a}. How old will {b} be in {years} years?"
    );
    let working =
        [format!("{b} is {now} years old."), format!("Later {b} will be {later} years old.")];
    worked(question, &working, later)
}

fn younger_later(age: u32, gap: u32, years: u32, a: &str, b: &str) -> Problem {
    let now = minus(age, gap);
    let later = plus(now.value, years);
    let question = format!(
        "{a} is {age} years old. {b} is {gap} years younger than {a}. How old will {b} be in {years} years?"
    );
    let working =
        [format!("{b} is {now} years old."), format!("Later {b} will be {later} years old.")];
    worked(question, &working, later)
}

fn twice_the_age(draw: &mut Draw) -> Problem {
    let (a, b, c) = three_people(draw);
    let (age, factor) = (draw.number(4, 15), draw.number(2, 4));
    let older = times(age, factor);
    let gap = draw.number(2, (older.value - 1).min(12));
    let third = minus(older.value, gap);
    let question = format!(
        "{a} is {age} years old. {b} is {factor} times as old as {a}. {c} is {gap} years younger than {b}. How old is {c}?"
    );
    let working = [format!("{b} is {older} years old."), format!("{c} is {third} years old.")];
    worked(question, &working, third)
}

fn equal_shares(draw: &mut Draw) -> Problem {
    let (a, b) = two_people(draw);
    let thing = things(draw);
    let share = draw.number(5, 45);
    let first = draw.number(2, 2 * share - 2);
    let total = plus(first, 2 * share - first);
    let each = over(total.value, 2);
    let question = format!(
        "{a} has {first} {thing} and {b} has {second}. They share all of them equally. How many {thing} does each get?",
        second = 2 * share - first
    );
    let working =
        [format!("Together they have {total} {thing}."), format!("Each gets {each} {thing}.")];
    worked(question, &working, each)
}
