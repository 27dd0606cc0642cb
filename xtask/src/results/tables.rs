//! docs/results.md as text.

use std::fmt::Write as _;

use moeprune::compare::Cut;

use super::{CRITERIA, CUTS, Results, Run, Searched, TOTALS};

/// Accuracy over the seeds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Point {
    mean: f64,
    /// Mean of the runs' standard errors over the questions.
    stderr: f64,
    /// Half of the range over the seeds.
    spread: f64,
    perplexity: f64,
    runs: usize,
}

impl Point {
    fn of(cuts: &[&Cut]) -> Option<Self> {
        let n = cuts.len() as f64;
        let accuracies: Vec<_> = cuts.iter().filter_map(|cut| cut.accuracy).collect();
        if cuts.is_empty() || accuracies.len() != cuts.len() {
            return None;
        }
        let means = || accuracies.iter().map(|a| a.mean);
        let (low, high) = (means().fold(f64::MAX, f64::min), means().fold(f64::MIN, f64::max));
        Some(Self {
            mean: means().sum::<f64>() / n,
            stderr: accuracies.iter().filter_map(|a| a.stderr).sum::<f64>() / n,
            spread: 0.5 * (high - low),
            // Geometric: it is a mean of logarithms.
            perplexity: (cuts.iter().filter_map(|c| c.perplexity).map(f64::ln).sum::<f64>() / n)
                .exp(),
            runs: cuts.len(),
        })
    }

    fn text(self, bold: bool) -> String {
        let mark = if bold { "**" } else { "" };
        format!(
            "{mark}{:.1}{mark} ± {:.1} ({:.1}), {:.2}",
            100.0 * self.mean,
            100.0 * self.stderr,
            100.0 * self.spread,
            self.perplexity
        )
    }
}

pub(super) fn point(
    results: &Results,
    table: &str,
    name: &str,
    of: impl Fn(&Cut) -> bool,
) -> Option<Point> {
    let runs = results.runs.iter().filter(|run: &&Run| run.table == table && run.name == name);
    let cuts: Vec<&Cut> = runs.map(|run| &run.cut).filter(|cut| of(cut)).collect();
    Point::of(&cuts)
}

/// `sections`: those that can be measured by themselves.
pub(super) fn render(results: &Results, seeds: &[u64], sections: &str) -> String {
    let mut text = String::from(HEAD);
    let unpruned = results.unpruned.as_ref().and_then(|cut| Point::of(&[cut]));
    if let Some(unpruned) = unpruned {
        let _ = writeln!(
            text,
            "The unpruned model: {:.1} ± {:.1} % of the questions, perplexity {:.2}. Seeds: {seeds:?}.\n",
            100.0 * unpruned.mean,
            100.0 * unpruned.stderr,
            unpruned.perplexity
        );
    }
    for (table, title) in [
        ("uniform", "## Whole experts, the same number in every layer"),
        ("global", "## Whole experts, one budget over all layers"),
    ] {
        let _ = writeln!(text, "{title}\n");
        whole_experts(&mut text, results, table);
        text.push('\n');
    }
    text.push_str(sections);
    text.push('\n');
    text.push_str(SPLIT);
    splits(&mut text, results);
    text.push_str(SEARCHED);
    searches(&mut text, &results.searches);
    text
}

/// The first two lines of a table: what its rows are, and its columns, shares.
pub(super) fn head(text: &mut String, rows: &str, columns: &[f64]) {
    let names: Vec<String> = columns.iter().map(|share| format!("{} %", 100.0 * share)).collect();
    let _ = writeln!(text, "| {rows} | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
}

fn whole_experts(text: &mut String, results: &Results, table: &str) {
    head(text, "criterion", &CUTS);
    let cell = |name: &str, cut: f64| point(results, table, name, |c| c.expert_share == cut);
    rows(text, &CRITERIA, &CUTS, cell);
    for cut in CUTS {
        let place = format!("At {} %", 100.0 * cut);
        text.push_str(&verdict(&place, "stun", &CRITERIA, |name| cell(name, cut)));
    }
}

fn splits(text: &mut String, results: &Results) {
    let names =
        ["STUN, owl", "STUN, uniform", "weights only, owl", "weights only, uniform", "searched"];
    head(text, "split", &TOTALS);
    let cell = |name: &str, total: f64| {
        point(results, "split", name, |c| c.total_share.max(c.expert_share) == total)
    };
    rows(text, &names, &TOTALS, cell);
    for total in TOTALS {
        let place = format!("At {} %", 100.0 * total);
        for (ours, other) in [
            ("STUN, owl", "weights only, owl"),
            ("STUN, owl", "weights only, uniform"),
            ("searched", "STUN, owl"),
            ("searched", "weights only, owl"),
        ] {
            text.push_str(&verdict(&place, ours, &[ours, other], |name| cell(name, total)));
        }
    }
}

fn searches(text: &mut String, searches: &[Searched]) {
    for Searched { seed, total, report } in searches {
        let Some(chosen) = report.candidates.iter().find(|candidate| candidate.chosen) else {
            continue;
        };
        let _ = writeln!(
            text,
            "| {seed} | {} % | {:.1} % by {} | {} | {:.4} | {} |",
            100.0 * total,
            100.0 * chosen.expert_sparsity,
            chosen.criterion,
            chosen.allocation,
            chosen.nll,
            report.candidates.len()
        );
    }
}

/// One sentence on how a row does against the best of the others in a column.
pub(super) fn verdict(
    place: &str,
    ours: &str,
    names: &[&str],
    cell: impl Fn(&str) -> Option<Point>,
) -> String {
    let Some(mine) = cell(ours) else { return String::new() };
    let others = names.iter().filter(|name| **name != ours);
    let measured = others.filter_map(|name| Some((*name, cell(name)?)));
    let best = measured.reduce(|best, other| if other.1.mean > best.1.mean { other } else { best });
    let Some((name, best)) = best else { return String::new() };
    let off = 100.0 * (mine.mean - best.mean);
    // The same questions are asked of both, so this is more than a paired error would be.
    let error = 100.0 * mine.stderr.hypot(best.stderr);
    let says = if off.abs() < 2.0 * error {
        "cannot be told from"
    } else if off > 0.0 {
        "is better than"
    } else {
        "is worse than"
    };
    let of = if names.len() > 2 { "the best of the others, " } else { "" };
    format!("- {place}, {ours} {says} {of}{name}: {off:+.1} ± {error:.1} points.\n")
}

/// One row per name; the best of each column is bold.
pub(super) fn rows(
    text: &mut String,
    names: &[&str],
    columns: &[f64],
    cell: impl Fn(&str, f64) -> Option<Point>,
) {
    let best: Vec<f64> = columns
        .iter()
        .map(|&column| {
            names.iter().filter_map(|name| cell(name, column)).map(|p| p.mean).fold(0.0, f64::max)
        })
        .collect();
    for name in names {
        let cells: Vec<String> = columns
            .iter()
            .zip(&best)
            .map(|(&column, &best)| match cell(name, column) {
                None => "-".into(),
                Some(point) => {
                    debug_assert!(point.runs > 0, "a point is of runs");
                    point.text(point.mean == best)
                }
            })
            .collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

const HEAD: &str = "# Results on the embedded model

Made by `cargo xtask results`, which measures everything below and writes this file. Sentences between the tables are made of
their numbers.

The model is the small mixture of experts in `assets/nano`, trained for this repository. It is small enough to be measured in
every way on a CPU, and **says little about models of other sizes**: 4 layers of 32 experts trained from scratch, a dense MLP
beside them, and one kind of problem. Nothing here is repaired: [repair.md](repair.md) has what repairing the experts that stay adds. Each cell is accuracy (strict match) on 500 problems made
for it, in percent: the mean over the calibration seeds ± the standard error of one run over the questions (half the range over the
seeds), then perplexity on held-out text. The best accuracy of a column is bold; differences below two standard errors decide
nothing.

Nothing is written to disk for these: one observation per seed serves all cuts, and weights are masked by its statistics
(`--statistics stored`).

";

const SPLIT: &str = "## STUN against weights only, and a searched split

STUN removes 20 % of the experts first, as the paper does for every model, and zeroes weights for the rest of the total; `weights
only` zeroes weights. `owl` is the paper's setting (M = 5, λ = 0.08), `uniform` one ratio for all layers. `searched` is what
`--expert-sparsity auto --allocation auto` makes of the same calibration text: candidates are scored on blocks of it that share no
token with those that they are made of, never on the problems.

";

const SEARCHED: &str = "
### What the search chose

| seed | total | experts | allocation | nats per token, held out | candidates |
|---|---|---|---|---|---|
";
