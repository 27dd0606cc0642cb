//! Numbers as people read them.

use crate::Cut;

/// A share as a percentage, with a digit after the point only where there is something to say.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let tenths = (value * 10.0).round() / 10.0;
    if share > 0.0 && tenths < 0.1 {
        "< 0.1 %".to_owned()
    } else if (tenths - tenths.round()).abs() < 0.05 {
        format!("{:.0} %", tenths.abs()) // no minus before a zero
    } else {
        format!("{tenths:.1} %")
    }
}

/// A measured number with three significant digits, or its power of ten where that is shorter.
pub(crate) fn significant(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 1e3 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(size.round() as u64))
    } else {
        // 9.996 rounds to 10.00 and has a digit more, which is no harm.
        let digits = size.log10().floor() as i32 + 1;
        let decimals = usize::try_from(3 - digits).unwrap_or(0);
        format!("{value:.decimals$}")
    }
}

/// A duration: seconds while they are few, then minutes, then hours.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // Saturates: a time that long is nonsense, but prints.
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    if hours == 0 {
        format!("{minutes} min {:02} s", seconds % 60)
    } else {
        format!("{hours} h {minutes:02} min")
    }
}

/// A count with its thousands apart.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 expert`, `2 experts`.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(number as u64)) }
}

/// At most `most` characters of a text, with an ellipsis for what is missing.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// What large numbers are counted in, so that a column or an axis of them needs few digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    size: f64,
    /// `millions`; empty for ones.
    pub(crate) parameters: &'static str,
    /// `MB`
    pub(crate) bytes: &'static str,
}

impl Unit {
    /// The largest unit of which there is at least one.
    pub(crate) fn for_up_to(largest: u64) -> Self {
        let (size, parameters, bytes) = match largest {
            0..1_000 => (1.0, "", "bytes"),
            1_000..1_000_000 => (1e3, "thousands", "kB"),
            1_000_000..1_000_000_000 => (1e6, "millions", "MB"),
            1_000_000_000..1_000_000_000_000 => (1e9, "billions", "GB"),
            _ => (1e12, "trillions", "TB"),
        };
        Self { size, parameters, bytes }
    }

    /// How many of this unit.
    pub(crate) fn of(self, value: u64) -> f64 {
        value as f64 / self.size
    }

    /// The same as text, with two decimals; ones have none.
    pub(crate) fn text(self, value: u64) -> String {
        if self.parameters.is_empty() {
            value.to_string()
        } else {
            format!("{:.2}", self.of(value))
        }
    }
}

/// How the sizes of some cuts are distinguished in few characters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SizeLabels {
    /// Only experts were removed.
    Experts,
    /// Only weights were zeroed.
    Total,
    /// Both happened, or some cuts did the one and some the other.
    Both,
}

impl SizeLabels {
    pub(crate) fn of<'a>(cuts: impl Iterator<Item = &'a Cut> + Clone) -> Self {
        if cuts.clone().all(|cut| cut.total_share == 0.0) {
            Self::Experts
        } else if cuts.clone().all(|cut| cut.expert_share == 0.0) {
            Self::Total
        } else {
            Self::Both
        }
    }

    /// `25 %`, or `25 / 40 %`.
    pub(crate) fn label(self, cut: &Cut) -> String {
        match self {
            Self::Experts => percent(cut.expert_share),
            Self::Total => percent(cut.total_share),
            Self::Both => {
                let (experts, total) = (percent(cut.expert_share), percent(cut.total_share));
                if cut.total_share == 0.0 {
                    return experts;
                }
                format!("{} / {total}", experts.trim_end_matches(" %"))
            }
        }
    }

    /// What a label is of, to follow "labels are".
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Experts => "the share of experts removed",
            Self::Total => "the total sparsity asked for",
            Self::Both => "the share of experts removed / the total sparsity asked for, if any",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_they_need() {
        let percents = [0.0, -0.0, 0.0001, 0.125, 0.25, 0.9996, 1.0].map(percent);
        assert_eq!(percents, ["0 %", "0 %", "< 0.1 %", "12.5 %", "25 %", "100 %", "100 %"]);
        let numbers = [0.0, 5.4321, 54.321, 0.054321, 5432.1, f64::MAX, -1e-9].map(significant);
        assert_eq!(numbers, ["0", "5.43", "54.3", "0.0543", "5,432", "1.80e308", "-1.00e-9"]);
        let times = [0.0, 59.94, 59.96, 61.0, 3661.0, f64::MAX].map(duration);
        assert_eq!(times[..5], ["0.0 s", "59.9 s", "1 min 00 s", "1 min 01 s", "1 h 01 min"]);
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(shortened("aéb", 3), "aéb");
        assert_eq!(shortened("aébc", 3), "aé…");
        assert_eq!(Unit::for_up_to(480_000_000_000).text(383_456_000_000), "383.46");
        assert_eq!(Unit::for_up_to(12).text(12), "12");
    }
}
