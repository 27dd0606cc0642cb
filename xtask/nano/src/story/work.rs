//! Reading, baking, travelling, planting: amounts that build up over days and hours.

use super::Story;
use super::words::person;
use crate::draw::Draw;
use crate::problem::{Problem, minus, over, plus, times, worked};

pub(super) const STORIES: &[Story] = &[
    pages_left,
    three_days,
    two_days,
    two_legs,
    practice,
    tank,
    garden,
    trays_packed,
    bus_stops,
    absent,
    eggs_sold,
    per_day,
];

fn pages_left(draw: &mut Draw) -> Problem {
    let reader = person(draw);
    let (pages, days) = (draw.number(3, 12), draw.number(2, 7));
    let read = times(pages, days);
    let book = read.value + draw.number(3, 40);
    let left = minus(book, read.value);
    let question = match draw.below(2) {
        0 => format!(
            "{reader} reads {pages} pages a day for {days} days. The book has {book} pages. How many pages are left?"
        ),
        _ => format!(
            "A book has {book} pages. {reader} reads {pages} pages each day. How many pages are left after {days} days?"
        ),
    };
    let working = [format!("{reader} reads {read} pages."), format!("Then {left} pages are left.")];
    worked(question, &working, left)
}

fn three_days(draw: &mut Draw) -> Problem {
    let doer = person(draw);
    let (act, unit) = activity(draw);
    let (first, more) = (draw.number(3, 25), draw.number(2, 10));
    let second = plus(first, more);
    let third = times(first, 2);
    let pair = plus(first, second.value);
    let total = plus(pair.value, third.value);
    let question = format!(
        "On Monday {doer} {act} {first} {unit}. On Tuesday {doer} {act} {more} {unit} more than on Monday. On Friday {doer} {act} twice as many as on Monday. How many {unit} is that in total?"
    );
    let working = [
        format!("On Tuesday {doer} {act} {second} {unit}."),
        format!("On Friday {doer} {act} {third} {unit}."),
        format!("Monday and Tuesday make {pair} {unit}."),
        format!("In total that is {total} {unit}."),
    ];
    worked(question, &working, total)
}

fn two_days(draw: &mut Draw) -> Problem {
    let doer = person(draw);
    let (act, unit) = activity(draw);
    let (first, factor) = (draw.number(2, 12), draw.number(2, 5));
    let second = times(first, factor);
    let total = plus(first, second.value);
    let question = format!(
        "On Sunday {doer} {act} {first} {unit}. On Monday {doer} {act} {factor} times as many. How many {unit} is that in total?"
    );
    let working = [
        format!("On Monday {doer} {act} {second} {unit}."),
        format!("In total that is {total} {unit}."),
    ];
    worked(question, &working, total)
}

fn activity(draw: &mut Draw) -> (&'static str, &'static str) {
    [
        ("reads", "pages"),
        ("bakes", "cakes"),
        ("sells", "tickets"),
        ("plants", "trees"),
        ("paints", "cups"),
        ("runs", "laps"),
    ][draw.below(6)]
}

fn two_legs(draw: &mut Draw) -> Problem {
    let driver = person(draw);
    let (fast, slow) = (draw.number(6, 12), draw.number(2, 6));
    let (long, short) = (draw.number(2, 6), draw.number(2, 5));
    let (one, two) = (times(fast, long), times(slow, short));
    let total = plus(one.value, two.value);
    let question = format!(
        "{driver} rides {fast} miles an hour for {long} hours and then walks {slow} miles an hour for {short} hours. How many miles is that in total?"
    );
    let working = [
        format!("{driver} rides {one} miles."),
        format!("{driver} walks {two} miles."),
        format!("In total that is {total} miles."),
    ];
    worked(question, &working, total)
}

fn practice(draw: &mut Draw) -> Problem {
    let player = person(draw);
    let (minutes, days, extra) = (draw.number(5, 12), draw.number(2, 7), draw.number(5, 30));
    let usual = times(minutes, days);
    let total = plus(usual.value, extra);
    let question = format!(
        "{player} plays {minutes} minutes a day for {days} days and {extra} minutes on Sunday. How many minutes does {player} play in total?"
    );
    let working = [
        format!("In {days} days {player} plays {usual} minutes."),
        format!("In total that is {total} minutes."),
    ];
    worked(question, &working, total)
}

fn tank(draw: &mut Draw) -> Problem {
    let (lost, hours) = (draw.number(2, 9), draw.number(2, 8));
    let gone = times(lost, hours);
    let start = gone.value + draw.number(3, 40);
    let left = minus(start, gone.value);
    if draw.one_in(2) {
        let question = format!(
            "A tank holds {start} liters and loses {lost} liters an hour. How many liters are left after {hours} hours?"
        );
        let working =
            [format!("The tank loses {gone} liters."), format!("Then {left} liters are left.")];
        return worked(question, &working, left);
    }
    let added = draw.number(5, 40);
    let end = plus(left.value, added);
    let question = format!(
        "A tank holds {start} liters and loses {lost} liters an hour for {hours} hours. Then {filler} adds {added} liters. How many liters are in the tank now?",
        filler = person(draw)
    );
    let working = [
        format!("The tank loses {gone} liters."),
        format!("Then {left} liters are left."),
        format!("In the end there are {end} liters."),
    ];
    worked(question, &working, end)
}

fn garden(draw: &mut Draw) -> Problem {
    let gardener = person(draw);
    let plant = draw.pick(&["trees", "flowers", "plants", "seeds"]);
    let (rows, each) = (draw.number(3, 9), draw.number(3, 10));
    let planted = times(rows, each);
    let died = draw.number(2, (planted.value - 2).min(20));
    let left = minus(planted.value, died);
    let question = format!(
        "{gardener} plants {rows} rows of {each} {plant} in {his} garden. {died} of them die. How many {plant} are left?",
        his = gardener.his
    );
    let working =
        [format!("{gardener} plants {planted} {plant}."), format!("Then {left} {plant} are left.")];
    worked(question, &working, left)
}

fn trays_packed(draw: &mut Draw) -> Problem {
    let baker = person(draw);
    let (bags, each) = (draw.number(2, 8), draw.number(2, 8));
    let packed = bags * each;
    // A number of trays and cakes a tray that leaves a few to eat.
    let trays = draw.number(2, 6);
    let tray = packed / trays + draw.number(1, 4);
    let baked = times(trays, tray);
    let eaten = baked.value - packed;
    let rest = minus(baked.value, eaten);
    let needed = over(rest.value, each);
    let question = format!(
        "{baker} bakes {trays} trays of {tray} cakes. {he} eats {eaten} and packs the rest in bags of {each}. How many bags does {baker} need?",
        he = baker.he
    );
    let working = [
        format!("{baker} bakes {baked} cakes."),
        format!("There are {rest} cakes to pack."),
        format!("There are {needed} bags."),
    ];
    worked(question, &working, needed)
}

fn bus_stops(draw: &mut Draw) -> Problem {
    let start = draw.number(10, 50);
    let off = draw.number(2, start - 5);
    let first = minus(start, off);
    let on = draw.number(2, 25);
    let second = plus(first.value, on);
    let vehicle = draw.pick(&["bus", "train", "boat"]);
    if draw.one_in(2) {
        let question = format!(
            "A {vehicle} has {start} people. At a stop {off} get off and {on} get on. How many people are on the {vehicle} now?"
        );
        let working = [
            format!("Then {first} people are left."),
            format!("In the end there are {second} people."),
        ];
        return worked(question, &working, second);
    }
    let last = draw.number(2, second.value - 3);
    let third = minus(second.value, last);
    let question = format!(
        "A {vehicle} has {start} people. At the first stop {off} get off and {on} get on. At the second stop {last} get off. How many people are on the {vehicle} now?"
    );
    let working = [
        format!("Then {first} people are left."),
        format!("Then there are {second} people."),
        format!("In the end there are {third} people."),
    ];
    worked(question, &working, third)
}

fn absent(draw: &mut Draw) -> Problem {
    let (buses, each) = (draw.number(2, 9), draw.number(3, 9));
    let going = buses * each;
    let classes = draw.number(2, 6);
    let class = going / classes + draw.number(1, 4);
    let all = times(classes, class);
    let sick = all.value - going;
    let there = minus(all.value, sick);
    if draw.one_in(2) {
        let question = format!(
            "A school has {classes} classes of {class} students. {sick} students are sick. How many students are at school?"
        );
        let working =
            [format!("There are {all} students."), format!("Then {there} students are left.")];
        return worked(question, &working, there);
    }
    let needed = over(there.value, each);
    let question = format!(
        "A school has {classes} classes of {class} students. {sick} students are sick and the rest form teams of {each}. How many teams are there?"
    );
    let working = [
        format!("There are {all} students."),
        format!("Then {there} students are left."),
        format!("There are {needed} teams."),
    ];
    worked(question, &working, needed)
}

fn eggs_sold(draw: &mut Draw) -> Problem {
    let farmer = person(draw);
    let (hens, each) = (draw.number(2, 6), draw.number(2, 4));
    let laid = times(hens, each);
    let used = draw.number(1, (laid.value - 2).min(12)).max(laid.value.saturating_sub(12));
    let sold = minus(laid.value, used);
    let cost = draw.number(2, 9);
    let income = times(sold.value, cost);
    let question = format!(
        "{farmer} has {hens} hens that lay {each} eggs each. {he} eats {used} eggs and sells the rest for ${cost} each. How much money does {farmer} make?",
        he = farmer.he
    );
    let working = [
        format!("The hens lay {laid} eggs."),
        format!("{farmer} sells {sold} eggs."),
        format!("{farmer} makes {income} dollars."),
    ];
    worked(question, &working, income)
}

fn per_day(draw: &mut Draw) -> Problem {
    let doer = person(draw);
    let (days, each) = (draw.number(2, 9), draw.number(2, 10));
    let total = days * each;
    let unit = draw.pick(&["pages", "miles", "laps", "letters"]);
    let daily = over(total, days);
    let question = format!(
        "{doer} has {total} {unit} to do in {days} days and does the same number each day. How many {unit} is that a day?"
    );
    worked(question, &[format!("Each day {doer} does {daily} {unit}.")], daily)
}
