//! The tables of docs/repair.md.

use std::fmt::Write as _;

use super::{
    Subject,
    cells::{
        BLOCK, BLOCKS, Cell, KIND_SHARES, KINDS, MORE_BLOCKS, OTHERS, REAP, SHARES, TOKEN_SHARES,
        TOTALS, Text,
    },
    measure::Measured,
};

/// The runs of one pruning with several calibration seeds.
#[derive(Debug, Clone, Copy)]
struct Point {
    accuracy: f64,
    /// Of one run, over the questions.
    stderr: f64,
    /// Half of the range over the seeds.
    spread: f64,
    nats: f64,
    runs: usize,
}

impl Subject {
    fn runs(&self, cell: &Cell) -> Vec<&Measured> {
        let same = |known: &Cell| Cell { seed: cell.seed, ..known.clone() } == *cell;
        let runs = self.measured.iter().filter(|(known, _)| same(known));
        runs.map(|(_, measured)| measured).collect()
    }

    fn point(&self, cell: &Cell) -> Option<Point> {
        let runs = self.runs(cell);
        let n = runs.len() as f64;
        let mean = |of: fn(&Measured) -> f64| runs.iter().map(|run| of(run)).sum::<f64>() / n;
        let nats = |run: &Measured| run.nats.get(Text::All.name()).copied().unwrap_or(f64::NAN);
        let accuracies = || runs.iter().map(|run| run.accuracy);
        let range = accuracies().fold(0.0, f64::max) - accuracies().fold(1.0, f64::min);
        (!runs.is_empty()).then(|| Point {
            accuracy: mean(|run| run.accuracy),
            stderr: mean(|run| run.stderr),
            spread: 0.5 * range,
            nats: mean(nats),
            runs: runs.len(),
        })
    }
}

pub(super) fn render(subjects: &[Subject], limit: usize) -> String {
    let mut text = format!(
        "Accuracy in percent ± the standard error of one run over {limit} questions, and nats per token of held-out text. \
         Left of an arrow: cut. **Right of it: cut and repaired.** Where three calibration seeds were run, their mean, and \
         half of their range in brackets. Calibration: {BLOCKS} blocks of {BLOCK} tokens where nothing else is said.\n\n"
    );
    for subject in subjects.iter().filter(|subject| !subject.measured.is_empty()) {
        let _ = writeln!(text, "### {}\n", subject.name);
        if let Some(point) = subject.point(&Cell::experts(0.0, false)) {
            let _ = writeln!(text, "Unpruned: {}, {:.3} nats.\n", accuracy(point), point.nats);
        }
        experts(&mut text, subject);
        totals(&mut text, subject);
        tokens(&mut text, subject);
        kinds(&mut text, subject);
    }
    text
}

fn experts(text: &mut String, subject: &Subject) {
    let rows = [REAP].into_iter().chain(OTHERS).map(|criterion| {
        let cells = SHARES.map(|share| {
            let of = |repair| Cell { criterion, ..Cell::experts(share, repair) };
            both(subject, &of)
        });
        (criterion.to_owned(), cells.to_vec())
    });
    table(text, "experts alone, by", &SHARES.map(percent), rows);
}

fn totals(text: &mut String, subject: &Subject) {
    let mut shares: Vec<f64> =
        TOTALS.iter().flat_map(|(_, shares)| shares.iter().copied()).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let row = |criterion: &'static str, share: f64| {
        let cells = TOTALS.map(|(total, _)| {
            let of =
                |repair| Cell { criterion, total: Some(total), ..Cell::experts(share, repair) };
            both(subject, &of)
        });
        let name = match share {
            0.0 => "none".to_owned(),
            share => format!("{} by {criterion}", percent(share)),
        };
        (name, cells.to_vec())
    };
    let by_reap = shares.iter().map(|&share| row(REAP, share));
    let others = OTHERS.iter().flat_map(|&other| shares.iter().map(move |&share| (other, share)));
    let others = others.filter(|(_, share)| *share > 0.0).map(|(other, share)| row(other, share));
    let columns = TOTALS.map(|(total, _)| format!("{} in all", percent(total)));
    table(text, "experts first, then weights (Wanda)", &columns, by_reap.chain(others));
}

fn tokens(text: &mut String, subject: &Subject) {
    if subject.measured.iter().all(|(cell, _)| cell.blocks == BLOCKS) {
        return;
    }
    let rows = TOKEN_SHARES.iter().map(|&share| {
        let cells = MORE_BLOCKS.map(|blocks| {
            let of = |repair| Cell { blocks, ..Cell::experts(share, repair) };
            both(subject, &of)
        });
        (percent(share), cells.to_vec())
    });
    let columns = MORE_BLOCKS.map(|blocks| format!("{} tokens", blocks * BLOCK));
    table(text, "experts alone by reap, calibrated on", &columns, rows);
}

fn kinds(text: &mut String, subject: &Subject) {
    let columns = [Text::Earning, Text::Having].map(|text| format!("nats, {}", text.name()));
    let unpruned = subject.runs(&Cell::experts(0.0, false));
    let nats = |runs: &[&Measured], text: Text| {
        runs.first().and_then(|run| run.nats.get(text.name())).map(|nats| format!("{nats:.3}"))
    };
    let mut rows = vec![(
        "nothing (unpruned)".to_owned(),
        [Text::Earning, Text::Having].map(|text| nats(&unpruned, text)).to_vec(),
    )];
    for (share, kind) in KIND_SHARES.iter().flat_map(|&share| KINDS.map(|kind| (share, kind))) {
        let of = |repair| subject.runs(&Cell { text: kind, ..Cell::experts(share, repair) });
        let (cut, repaired) = (of(false), of(true));
        let cells = [Text::Earning, Text::Having].map(|text| {
            let repaired = nats(&repaired, text)?;
            let cut = nats(&cut, text).map_or_else(String::new, |nats| format!("{nats} → "));
            Some(format!("{cut}**{repaired}**"))
        });
        rows.push((format!("{}, {} of the experts", kind.name(), percent(share)), cells.to_vec()));
    }
    if rows[1..].iter().any(|(_, cells)| cells.iter().any(Option::is_some)) {
        table(text, "calibrated on", &columns, rows.into_iter());
    }
}

/// Rows in which something was measured, under `columns`; nothing if there are none.
fn table(
    text: &mut String,
    rows_are: &str,
    columns: &[String],
    rows: impl Iterator<Item = (String, Vec<Option<String>>)>,
) {
    let rows: Vec<_> = rows.filter(|(_, cells)| cells.iter().any(Option::is_some)).collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "| {rows_are} | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
    for (name, cells) in rows {
        let cells: Vec<String> =
            cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into())).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// Without and with repair.
fn both(subject: &Subject, cell: &dyn Fn(bool) -> Cell) -> Option<String> {
    match (subject.point(&cell(false)), subject.point(&cell(true))) {
        (Some(cut), Some(repaired)) => Some(format!(
            "{} → **{}**; {:.3} → {:.3}",
            accuracy(cut),
            accuracy(repaired),
            cut.nats,
            repaired.nats
        )),
        (Some(cut), None) => Some(format!("{}; {:.3}", accuracy(cut), cut.nats)),
        _ => None,
    }
}

fn accuracy(point: Point) -> String {
    let spread = match point.runs {
        1 => String::new(),
        _ => format!(" ({:.1})", 100.0 * point.spread),
    };
    format!("{:.1} ± {:.1}{spread}", 100.0 * point.accuracy, 100.0 * point.stderr)
}

fn percent(share: f64) -> String {
    format!("{} %", 100.0 * share)
}
