//! Where an axis is labelled: at round numbers.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// A stretch of an axis and the round numbers in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ticks {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) at: Vec<f64>,
    decimals: usize,
}

impl Ticks {
    /// An axis that shows `low` to `high` with some room around, and about `wanted` labels.
    ///
    /// The room stays within `bounds`, for a share above 100 % would be drawn but cannot be.
    pub(crate) fn around(low: f64, high: f64, wanted: usize, bounds: (f64, f64)) -> Self {
        let span = high - low;
        let room = if span > 0.0 {
            0.08 * span
        } else {
            // A single value has no scale.
            (0.05 * low.abs()).max(1e-3)
        };
        let (low, high) = ((low - room).max(bounds.0), (high + room).min(bounds.1));
        Self::between(low, high, wanted)
    }

    /// The axis from `low` to `high` as it is.
    pub(crate) fn between(low: f64, high: f64, wanted: usize) -> Self {
        let step = round_step((high - low) / wanted.max(1) as f64);
        let first = (low / step - 1e-9).ceil();
        let last = (high / step + 1e-9).floor();
        let at = (0..=100)
            .map(|index| first + f64::from(index))
            .take_while(|&number| number <= last)
            .map(|number| number * step)
            .collect();
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        Self { low, high, at, decimals }
    }

    /// An axis of `count` things numbered from 0, with about six of the numbers.
    pub(crate) fn numbers(count: usize) -> Self {
        let last = count.saturating_sub(1) as f64;
        let at = Self::between(0.0, last.max(1.0), 6).at;
        let at = at.into_iter().filter(|at| at.fract() == 0.0 && *at <= last).collect();
        Self { low: -0.5, high: last + 0.5, at, decimals: 0 }
    }

    /// A logarithmic axis, given and laid out in powers of ten: 1, 2 and 5 of each if there are few.
    pub(crate) fn powers(low: f64, high: f64) -> Self {
        let room = 0.08 * (high - low);
        let (low, high) = (low - room, high + room);
        let decades = (high - low).ceil().max(1.0);
        let stride = (decades / 6.0).ceil();
        let steps: &[f64] = if decades <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let first = (low / stride).floor();
        let at = (0..=8)
            .map(|index| (first + f64::from(index)) * stride)
            .flat_map(|decade| steps.iter().map(move |step| decade + step.log10()))
            .filter(|at| (low..=high).contains(at))
            .collect();
        Self { low, high, at, decimals: 0 }
    }

    /// A tick with the decimals that tell it from its neighbours.
    pub(crate) fn label(&self, value: f64) -> String {
        let text = format!("{value:.*}", self.decimals);
        if text.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { text }
    }
}

/// The nearest of 1, 2 and 5 times a power of ten, nearest by ratio.
fn round_step(raw: f64) -> f64 {
    let power = 10_f64.powf(raw.log10().floor());
    let step = match raw / power {
        ratio if ratio < 2_f64.sqrt() => power,
        ratio if ratio < 10_f64.sqrt() => 2.0 * power,
        ratio if ratio < 50_f64.sqrt() => 5.0 * power,
        _ => 10.0 * power,
    };
    if step.is_normal() { step } else { 1.0 }
}

/// Plotters' own axes choose other labels for an axis that is a pixel wider.
impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.low) / (self.high - self.low);
        // Saturates, and a value that is not a number is drawn at the beginning of the axis.
        (f64::from(from) + part * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.at.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = Ticks::between(0.0, 100.0, 5);
        assert_eq!(ticks.at, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let ticks = Ticks::between(56.3, 61.2, 5);
        assert_eq!(
            ticks.at.iter().map(|&at| ticks.label(at)).collect::<Vec<_>>(),
            ["57", "58", "59", "60", "61"]
        );
        let ticks = Ticks::between(-0.25, 0.31, 5);
        let labels: Vec<_> = ticks.at.iter().map(|&at| ticks.label(at)).collect();
        assert_eq!(labels, ["-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]);
    }

    #[test]
    fn things_are_labelled_with_whole_numbers() {
        assert_eq!(Ticks::numbers(1).at, [0.0]);
        assert_eq!(Ticks::numbers(2).at, [0.0, 1.0]);
        assert_eq!(Ticks::numbers(35).at, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
    }

    #[test]
    fn an_axis_of_one_value_has_room_and_shares_stay_shares() {
        let ticks = Ticks::around(100.0, 100.0, 5, (0.0, 100.0));
        assert_eq!((ticks.low, ticks.high), (95.0, 100.0));
        assert!(Ticks::around(0.0, 0.0, 5, (0.0, 100.0)).high > 0.0);
        for value in [0.0, 1e-300, 1e300, 308.0] {
            let ticks = Ticks::around(value, value, 5, (f64::MIN, f64::MAX));
            assert!(ticks.low < ticks.high && ticks.at.len() < 102, "{ticks:?}");
        }
    }
}
