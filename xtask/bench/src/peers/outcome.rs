//! What was measured, as text and as JSON.

use std::fmt;

use moeprune_cli::{bytes, table};
use serde::Serialize;
use serde_json::Value;

use super::agreement::Agreement;
use crate::process::Taken;

/// Everything of one call.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    processor: String,
    threads: usize,
    model: String,
    pub(super) rows: Vec<Row>,
}

/// One method of ours beside one of a peer.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    peer: &'static str,
    method: &'static str,
    /// How our side takes its statistics.
    ours: &'static str,
    share: f64,
    pub(super) versions: Value,
    pub(super) pairs: Vec<Pair>,
    pub(super) agreement: Option<Agreement>,
}

/// One turn.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    ours: Taken,
    theirs: Taken,
    /// Of theirs, wall and processor seconds after its imports.
    after_imports: [f64; 2],
}

impl Pair {
    /// `said`: what the peer's script wrote.
    pub(super) fn new(ours: Taken, theirs: Taken, said: &Value) -> Self {
        let seconds = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        Self { ours, theirs, after_imports: [seconds("wall"), seconds("cpu")] }
    }
}

impl Outcome {
    pub(super) fn new(processor: String, threads: usize, model: String) -> Self {
        Self { processor, threads, model, rows: Vec::new() }
    }
}

impl Row {
    pub(super) fn new(
        peer: &'static str,
        method: &'static str,
        ours: &'static str,
        share: f64,
    ) -> Self {
        let (versions, pairs) = (Value::Null, Vec::new());
        Self { peer, method, ours, share, versions, pairs, agreement: None }
    }

    /// Median, least and most over the turns.
    fn spread(&self, of: impl Fn(&Pair) -> f64) -> [f64; 3] {
        let mut all: Vec<f64> = self.pairs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        match all.as_slice() {
            [] => [f64::NAN; 3],
            [first, .., last] => [median(&all), *first, *last],
            [one] => [*one; 3],
        }
    }

    fn cells(&self) -> Vec<String> {
        let ratio = |of: &dyn Fn(&Pair) -> f64| {
            let [middle, low, high] = self.spread(of);
            format!("{middle:.2} ({low:.2} to {high:.2})")
        };
        let seconds = |of: &dyn Fn(&Pair) -> f64| format!("{:.2}", self.spread(of)[0]);
        let memory =
            |of: &dyn Fn(&Pair) -> u64| bytes(self.spread(|pair| of(pair) as f64)[0] as u64);
        vec![
            format!("{} {} %, {}", self.method, 100.0 * self.share, self.ours),
            self.peer.to_owned(),
            format!(
                "{} / {}",
                seconds(&|pair| pair.ours.processor),
                seconds(&|pair| pair.theirs.processor)
            ),
            ratio(&|pair| pair.theirs.processor / pair.ours.processor),
            ratio(&|pair| pair.after_imports[1] / pair.ours.processor),
            ratio(&|pair| pair.theirs.wall / pair.ours.wall),
            format!("{} / {}", memory(&|pair| pair.ours.peak), memory(&|pair| pair.theirs.peak)),
            ratio(&|pair| pair.theirs.peak as f64 / pair.ours.peak as f64),
        ]
    }
}

/// Of numbers in order.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => 0.5 * (sorted[middle - 1] + sorted[middle]),
        _ => sorted[middle],
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, threads, model, rows } = self;
        writeln!(f, "{processor}; both sides on {threads} of them\n{model}")?;
        for row in rows {
            writeln!(f, "{}: {}", row.peer, row.versions)?;
        }
        let head = [
            "method, ours",
            "peer",
            "processor seconds",
            "times",
            "times, after imports",
            "times, wall",
            "most resident",
            "times, resident",
        ];
        let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
        write!(
            f,
            "\nours / theirs; times: theirs over ours, the median of the turns (least to most)\n{}",
            table(&head, &cells)
        )?;
        for row in rows {
            if let Some(agreement) = &row.agreement {
                writeln!(f, "{}, {} beside {}: {agreement}", row.method, row.ours, row.peer)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[f64], expected: [f64; 3]| {
            let mut row = Row::new("peer", "reap", "independent", 0.5);
            let taken = |wall| Taken { wall, processor: wall, peak: 1 };
            let pair = |&v: &f64| Pair::new(taken(1.0), taken(v), &Value::Null);
            row.pairs = values.iter().map(pair).collect();
            assert_eq!(row.spread(|pair| pair.theirs.wall / pair.ours.wall), expected);
        };
        check(&[3.0], [3.0; 3]);
        check(&[3.0, 1.0], [2.0, 1.0, 3.0]);
        check(&[3.0, 1.0, 9.0], [3.0, 1.0, 9.0]);
    }
}
