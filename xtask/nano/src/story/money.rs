//! Buying, saving, earning and paying.

use super::Story;
use super::words::{goods, person, two_goods, two_people};
use crate::draw::Draw;
use crate::problem::{Problem, minus, over, plus, times, worked};

pub(super) const STORIES: &[Story] = &[
    price,
    change,
    two_purchases,
    two_purchases_change,
    coupon,
    savings,
    savings_spent,
    wages,
    shared_bill,
    dearer,
    dearer_change,
    sale,
];

fn price(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let item = goods(draw);
    let (count, cost) = (draw.number(2, 9), draw.number(2, 12));
    let total = times(count, cost);
    let question = match draw.below(2) {
        0 => format!("{buyer} buys {count} {item} for ${cost} each. How much does {buyer} pay?"),
        _ => format!("One of the {item} costs ${cost}. How much do {count} {item} cost?"),
    };
    worked(question, &[format!("The {item} cost {total} dollars.")], total)
}

fn change(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let item = goods(draw);
    let (count, cost) = (draw.number(2, 9), draw.number(2, 10));
    let total = times(count, cost);
    let paid = total.value + draw.number(1, 30);
    let rest = minus(paid, total.value);
    let question = match draw.below(2) {
        0 => format!(
            "{buyer} buys {count} {item} for ${cost} each and pays with ${paid}. How much change does {buyer} get?"
        ),
        _ => format!(
            "{buyer} has ${paid} and buys {count} {item} at ${cost} each. How much money is left?"
        ),
    };
    let working =
        [format!("The {item} cost {total} dollars."), format!("{buyer} has {rest} dollars left.")];
    worked(question, &working, rest)
}

fn two_purchases(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let (first, second) = two_goods(draw);
    let (m, p) = (draw.number(2, 6), draw.number(2, 10));
    let (n, q) = (draw.number(2, 6), draw.number(2, 10));
    let (one, two) = (times(m, p), times(n, q));
    let total = plus(one.value, two.value);
    let question = match draw.below(2) {
        0 => format!(
            "{buyer} buys {m} {first} for ${p} each and {n} {second} for ${q} each. How much does {buyer} pay?"
        ),
        _ => format!(
            "At a shop {first} cost ${p} each and {second} cost ${q} each. How much do {m} {first} and {n} {second} cost?"
        ),
    };
    let working = [
        format!("The {first} cost {one} dollars."),
        format!("The {second} cost {two} dollars."),
        format!("Together they cost {total} dollars."),
    ];
    worked(question, &working, total)
}

fn two_purchases_change(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let (first, second) = two_goods(draw);
    let (m, p) = (draw.number(2, 5), draw.number(2, 9));
    let (n, q) = (draw.number(2, 5), draw.number(2, 9));
    let (one, two) = (times(m, p), times(n, q));
    let total = plus(one.value, two.value);
    let paid = total.value + draw.number(1, 20);
    let rest = minus(paid, total.value);
    let question = format!(
        "{buyer} buys {m} {first} for ${p} each and {n} {second} for ${q} each. {he} pays with ${paid}. How much change does {buyer} get?",
        he = buyer.he
    );
    let working = [
        format!("The {first} cost {one} dollars."),
        format!("The {second} cost {two} dollars."),
        format!("Together they cost {total} dollars."),
        format!("{buyer} has {rest} dollars left."),
    ];
    worked(question, &working, rest)
}

fn coupon(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let item = goods(draw);
    let (count, cost) = (draw.number(2, 9), draw.number(4, 12));
    let total = times(count, cost);
    let off = draw.number(2, (total.value - 2).min(15));
    let paid = minus(total.value, off);
    let question = format!(
        "{buyer} buys {count} {item} for ${cost} each and has a coupon for ${off} off. How much does {buyer} pay?"
    );
    let working = [
        format!("The {item} cost {total} dollars."),
        format!("With the coupon {buyer} pays {paid} dollars."),
    ];
    worked(question, &working, paid)
}

fn savings(draw: &mut Draw) -> Problem {
    let saver = person(draw);
    let (had, week, weeks) = (draw.number(5, 50), draw.number(2, 10), draw.number(2, 8));
    let saved = times(week, weeks);
    let total = plus(had, saved.value);
    let question = format!(
        "{saver} has ${had} and saves ${week} each week. How much money does {saver} have after {weeks} weeks?"
    );
    let working = [
        format!("{saver} saves {saved} dollars."),
        format!("In total {saver} has {total} dollars."),
    ];
    worked(question, &working, total)
}

fn savings_spent(draw: &mut Draw) -> Problem {
    let saver = person(draw);
    let item = goods(draw);
    let (had, week, weeks) = (draw.number(5, 40), draw.number(2, 9), draw.number(2, 7));
    let saved = times(week, weeks);
    let total = plus(had, saved.value);
    let spent = draw.number(3, (total.value - 2).min(30));
    let rest = minus(total.value, spent);
    let question = format!(
        "{saver} has ${had} and saves ${week} each week for {weeks} weeks. Then {he} spends ${spent} on {item}. How much money is left?",
        he = saver.he.to_lowercase()
    );
    let working = [
        format!("{saver} saves {saved} dollars."),
        format!("In total {saver} has {total} dollars."),
        format!("After paying {saver} has {rest} dollars left."),
    ];
    worked(question, &working, rest)
}

fn wages(draw: &mut Draw) -> Problem {
    let worker = person(draw);
    let wage = draw.number(5, 12);
    let (first, second) = (draw.number(1, 5), draw.number(1, 4));
    let hours = plus(first, second);
    let pay = times(hours.value, wage);
    let question = match draw.below(2) {
        0 => format!(
            "{worker} earns ${wage} an hour. {he} works {first} hours on Monday and {second} hours on Friday. How much does {worker} earn?",
            he = worker.he
        ),
        _ => format!(
            "{worker} works {first} hours on Sunday and {second} hours on Tuesday for ${wage} an hour. How much money does {worker} earn?"
        ),
    };
    let working =
        [format!("{worker} works {hours} hours."), format!("{worker} earns {pay} dollars.")];
    worked(question, &working, pay)
}

fn shared_bill(draw: &mut Draw) -> Problem {
    let host = person(draw);
    let (first, second) = two_goods(draw);
    let (people, each) = (draw.number(2, 6), draw.number(3, 12));
    let bill = people * each;
    let one = draw.number(2, bill - 2);
    let total = plus(one, bill - one);
    let share = over(bill, people);
    let question = format!(
        "{people} friends of {host} buy {first} for ${one} and {second} for ${two}. They share the cost equally. How much does each friend pay?",
        two = bill - one
    );
    let working = [
        format!("Together they cost {total} dollars."),
        format!("Each friend pays {share} dollars."),
    ];
    worked(question, &working, share)
}

fn dearer(draw: &mut Draw) -> Problem {
    let (buyer, _) = two_people(draw);
    let (first, second) = two_goods(draw);
    let (cost, more) = (draw.number(3, 40), draw.number(2, 20));
    let other = plus(cost, more);
    let total = plus(cost, other.value);
    let question = format!(
        "{buyer} pays ${cost} for {first}. The {second} cost ${more} more than the {first}. How much does {buyer} pay in total?"
    );
    let working = [
        format!("The {second} cost {other} dollars."),
        format!("Together they cost {total} dollars."),
    ];
    worked(question, &working, total)
}

fn dearer_change(draw: &mut Draw) -> Problem {
    let buyer = person(draw);
    let (first, second) = two_goods(draw);
    let (cost, factor) = (draw.number(2, 12), draw.number(2, 4));
    let other = times(cost, factor);
    let total = plus(cost, other.value);
    let paid = total.value + draw.number(1, 30);
    let rest = minus(paid, total.value);
    let question = format!(
        "{buyer} has ${paid} and pays ${cost} for {first}. The {second} cost {factor} times as much. How much money is left after buying both?"
    );
    let working = [
        format!("The {second} cost {other} dollars."),
        format!("Together they cost {total} dollars."),
        format!("{buyer} has {rest} dollars left."),
    ];
    worked(question, &working, rest)
}

fn sale(draw: &mut Draw) -> Problem {
    let seller = person(draw);
    let item = goods(draw);
    let (made, kept, cost) = (draw.number(5, 12), draw.number(1, 4), draw.number(2, 9));
    let sold = minus(made, kept);
    let income = times(sold.value, cost);
    let question = format!(
        "{seller} makes {made} {item}, keeps {kept} and sells the rest for ${cost} each. How much money does {seller} make?"
    );
    let working =
        [format!("{seller} sells {sold} {item}."), format!("{seller} makes {income} dollars.")];
    worked(question, &working, income)
}
