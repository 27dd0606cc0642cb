//! The moment that a template may ask for.

use minijinja::Error;

use super::refuse;

/// A date and a time of day, without a time zone: what `strftime_now` writes.
///
/// Rendering has to give the same text at any time, so the moment is fixed unless the caller names
/// another: [`Moment::FIXED`], the first second of 2025.
///
/// ```
/// use moeprune_chat::Moment;
///
/// let moment = Moment::new(2024, 7, 26, [9, 5, 0]).expect("a real date");
/// assert_eq!(moment.format("%d %b %Y").as_deref(), Some("26 Jul 2024"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    year: u32,
    month: u32,
    day: u32,
    time: [u32; 3],
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Moment {
    /// The moment of every rendering that is not given another: 2025-01-01 00:00:00.
    pub const FIXED: Self = Self { year: 2025, month: 1, day: 1, time: [0, 0, 0] };

    /// A moment of the years 1 to 9999, in the calendar of today; `time` is hours, minutes and
    /// seconds. `None` if there is no such.
    pub fn new(year: u32, month: u32, day: u32, time: [u32; 3]) -> Option<Self> {
        let moment = Self { year, month, day, time };
        let real = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day)
            && time[0] < 24
            && time[1] < 60
            && time[2] < 60;
        real.then_some(moment)
    }

    /// The moment in the words of a format, as Python's `strftime` in the C locale. `None` for a
    /// directive that is not known.
    pub fn format(&self, format: &str) -> Option<String> {
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = rest.next()?;
            let flag = matches!(directive, '-' | '_' | '0').then_some(directive);
            if flag.is_some() {
                directive = rest.next()?;
            }
            text.push_str(&self.directive(directive, flag)?);
        }
        Some(text)
    }

    fn directive(&self, directive: char, flag: Option<char>) -> Option<String> {
        let [hour, minute, second] = self.time;
        let number = |value: u32, width: usize| Some(padded(value, width, flag.unwrap_or('0')));
        let spaced = |value: u32| Some(padded(value, 2, flag.unwrap_or('_')));
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        match directive {
            'd' => number(self.day, 2),
            'e' => spaced(self.day),
            'm' => number(self.month, 2),
            'y' => number(self.year % 100, 2),
            // As glibc does, which fills it up only if a flag says so.
            'Y' if flag.is_none() => Some(self.year.to_string()),
            'Y' => number(self.year, 4),
            'C' => number(self.year / 100, 2),
            'H' => number(hour, 2),
            'I' => number(twelve, 2),
            'k' => spaced(hour),
            'l' => spaced(twelve),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'f' => Some("000000".to_owned()),
            'j' => number(self.day_of_year(), 3),
            'u' => number((self.weekday() + 6) % 7 + 1, 1),
            'w' => number(self.weekday(), 1),
            'U' => number((self.day_of_year() + 6 - self.weekday()) / 7, 2),
            'W' => number((self.day_of_year() + 6 - (self.weekday() + 6) % 7) / 7, 2),
            'B' => Some(self.month_name().to_owned()),
            'b' | 'h' => Some(self.month_name()[..3].to_owned()),
            'A' => Some(self.weekday_name().to_owned()),
            'a' => Some(self.weekday_name()[..3].to_owned()),
            'p' => Some(if hour < 12 { "AM" } else { "PM" }.to_owned()),
            'P' => Some(if hour < 12 { "am" } else { "pm" }.to_owned()),
            'F' => self.format("%Y-%m-%d"),
            'D' | 'x' => self.format("%m/%d/%y"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'r' => self.format("%I:%M:%S %p"),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            // There is no time zone.
            'z' | 'Z' => Some(String::new()),
            'n' => Some("\n".to_owned()),
            't' => Some("\t".to_owned()),
            '%' => Some("%".to_owned()),
            _ => None,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS[self.month as usize - 1]
    }

    fn weekday_name(&self) -> &'static str {
        DAYS[self.weekday() as usize]
    }

    fn day_of_year(&self) -> u32 {
        (1..self.month).map(|month| days_in(self.year, month)).sum::<u32>() + self.day
    }

    /// Days since a Sunday: 1 January of the year 1 was a Monday.
    fn weekday(&self) -> u32 {
        let past = self.year - 1;
        (past * 365 + past / 4 - past / 100 + past / 400 + self.day_of_year()) % 7
    }

    /// What a template's `strftime_now` returns.
    pub(crate) fn strftime(&self, format: &str) -> Result<String, Error> {
        let text = self.format(format);
        text.ok_or_else(|| refuse(format!("strftime_now: the format {format:?} is not known")))
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn padded(value: u32, width: usize, fill: char) -> String {
    match fill {
        '-' => value.to_string(),
        '_' => format!("{value:width$}"),
        _ => format!("{value:0width$}"),
    }
}
