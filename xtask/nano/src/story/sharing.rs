//! Boxes, bags, rows and equal shares.

use super::Story;
use super::words::{person, things};
use crate::draw::Draw;
use crate::problem::{Problem, minus, over, plus, times, worked};

pub(super) const STORIES: &[Story] = &[
    boxes_and_loose,
    boxes_given_away,
    bags_needed,
    rest_shared,
    empty_chairs,
    boxes_shared,
    two_colours_packed,
    packs_sold,
    two_sizes,
    refilled,
];

fn boxes_and_loose(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (boxes, each, loose) = (draw.number(2, 9), draw.number(2, 10), draw.number(2, 20));
    let boxed = times(boxes, each);
    let total = plus(boxed.value, loose);
    let question = match draw.below(2) {
        0 => format!(
            "{owner} has {boxes} boxes with {each} {thing} each and {loose} more {thing}. How many {thing} does {owner} have?"
        ),
        _ => format!(
            "There are {each} {thing} in each of {boxes} boxes. {owner} has {loose} more. How many {thing} are there in total?"
        ),
    };
    let working = [
        format!("The boxes hold {boxed} {thing}."),
        format!("In total there are {total} {thing}."),
    ];
    worked(question, &working, total)
}

fn boxes_given_away(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (boxes, each) = (draw.number(2, 9), draw.number(3, 10));
    let boxed = times(boxes, each);
    let gone = draw.number(2, (boxed.value - 2).min(30));
    let left = minus(boxed.value, gone);
    let question = match draw.below(2) {
        0 => format!(
            "{owner} buys {boxes} boxes of {each} {thing} and gives {gone} {thing} away. How many {thing} are left?"
        ),
        _ => format!(
            "{owner} has {boxes} bags with {each} {thing} in each. {he} loses {gone}. How many {thing} are left?",
            he = owner.he
        ),
    };
    let working =
        [format!("The boxes hold {boxed} {thing}."), format!("Then {left} {thing} are left.")];
    worked(question, &working, left)
}

fn bags_needed(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (bags, each) = (draw.number(2, 12), draw.number(2, 9));
    let total = bags * each;
    let needed = over(total, each);
    let question = match draw.below(2) {
        0 => format!(
            "{owner} has {total} {thing} and puts {each} in each bag. How many bags does {owner} need?"
        ),
        _ => format!("{total} {thing} are packed in bags of {each}. How many bags are there?"),
    };
    worked(question, &[format!("There are {needed} bags.")], needed)
}

fn rest_shared(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (friends, each, kept) = (draw.number(2, 9), draw.number(2, 10), draw.number(2, 20));
    let all = friends * each + kept;
    let rest = minus(all, kept);
    let share = over(rest.value, friends);
    let question = match draw.below(2) {
        0 => format!(
            "{owner} has {all} {thing}. {he} keeps {kept} and shares the rest equally among {friends} friends. How many {thing} does each friend get?",
            he = owner.he
        ),
        _ => format!(
            "{owner} finds {all} {thing} and loses {kept} of them. {friends} friends share the rest equally. How many {thing} does each friend get?"
        ),
    };
    let working = [
        format!("There are {rest} {thing} to share."),
        format!("Each friend gets {share} {thing}."),
    ];
    worked(question, &working, share)
}

fn empty_chairs(draw: &mut Draw) -> Problem {
    let (rows, each) = (draw.number(3, 9), draw.number(4, 10));
    let chairs = times(rows, each);
    let people = draw.number(5, chairs.value - 2);
    let empty = minus(chairs.value, people);
    let place = draw.pick(&["school", "park", "library", "bus"]);
    let question = format!(
        "There are {rows} rows of {each} chairs at the {place}. {people} people sit down. How many chairs are empty?"
    );
    let working =
        [format!("There are {chairs} chairs."), format!("Then {empty} chairs are empty.")];
    worked(question, &working, empty)
}

fn boxes_shared(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (friends, factor) = (draw.number(2, 5), draw.number(2, 4));
    // The number of boxes divides among the friends, so that the things do.
    let (boxes, each) = (friends * factor, draw.number(2, 6));
    let boxed = times(boxes, each);
    let share = over(boxed.value, friends);
    let question = format!(
        "{owner} has {boxes} boxes of {each} {thing} and shares the {thing} equally among {friends} friends. How many {thing} does each friend get?"
    );
    let working =
        [format!("The boxes hold {boxed} {thing}."), format!("Each friend gets {share} {thing}.")];
    worked(question, &working, share)
}

fn two_colours_packed(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (bags, each) = (draw.number(3, 12), draw.number(2, 8));
    let all = bags * each;
    let red = draw.number(2, all - 2);
    let total = plus(red, all - red);
    let needed = over(all, each);
    let question = format!(
        "{owner} has {red} red {thing} and {blue} blue {thing}. {he} puts {each} in each bag. How many bags does {owner} need?",
        blue = all - red,
        he = owner.he
    );
    let working =
        [format!("In total there are {total} {thing}."), format!("There are {needed} bags.")];
    worked(question, &working, needed)
}

fn packs_sold(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (bags, each, cost) = (draw.number(2, 9), draw.number(2, 9), draw.number(2, 10));
    let all = bags * each;
    let packed = over(all, each);
    let income = times(packed.value, cost);
    let question = format!(
        "{owner} packs {all} {thing} in bags of {each} and sells each bag for ${cost}. How much money does {owner} make?"
    );
    let working = [format!("There are {packed} bags."), format!("{owner} makes {income} dollars.")];
    worked(question, &working, income)
}

fn two_sizes(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (small, few) = (draw.number(2, 6), draw.number(2, 6));
    let (large, many) = (draw.number(2, 6), draw.number(6, 10));
    let (one, two) = (times(small, few), times(large, many));
    let total = plus(one.value, two.value);
    let question = format!(
        "{owner} has {small} small boxes with {few} {thing} each and {large} large boxes with {many} {thing} each. How many {thing} does {owner} have?"
    );
    let working = [
        format!("The small boxes hold {one} {thing}."),
        format!("The large boxes hold {two} {thing}."),
        format!("In total there are {total} {thing}."),
    ];
    worked(question, &working, total)
}

fn refilled(draw: &mut Draw) -> Problem {
    let owner = person(draw);
    let thing = things(draw);
    let (boxes, each) = (draw.number(2, 8), draw.number(3, 9));
    let boxed = times(boxes, each);
    let gone = draw.number(2, (boxed.value - 2).min(20));
    let left = minus(boxed.value, gone);
    let more = draw.number(2, 30);
    let end = plus(left.value, more);
    let question = format!(
        "{owner} has {boxes} boxes of {each} {thing}. {he} gives away {gone} and then buys {more} more. How many {thing} does {owner} have now?",
        he = owner.he
    );
    let working = [
        format!("The boxes hold {boxed} {thing}."),
        format!("Then {left} {thing} are left."),
        format!("In the end {owner} has {end} {thing}."),
    ];
    worked(question, &working, end)
}
