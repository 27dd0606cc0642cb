//! The section on statistics of the model as it loses experts.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    Results,
    tables::{head, point, rows, verdict},
};

/// Before and after the section in docs/results.md, so that it can be measured again by itself.
pub(super) const BEGIN: &str = "<!-- sequential begin -->\n";
pub(super) const END: &str = "<!-- sequential end -->\n";

/// The criterion, and the name of its rows with sequential statistics.
pub(super) const REAP: &str = "reap";
pub(super) const IN_TURN: &str = "reap, sequential";

/// Shares of the experts that are measured.
pub(super) const SHARES: [f64; 2] = [0.25, 0.5];

pub(super) fn render(results: &Results) -> String {
    let runs = results.runs.iter().filter(|run| run.name == IN_TURN);
    let seeds: BTreeSet<u64> = runs.clone().map(|run| run.seed).collect();
    let mut text = format!("{BEGIN}{HEAD}Seeds: {seeds:?}.\n\n");
    head(&mut text, "criterion, statistics", &SHARES);
    let cell = |name: &str, cut: f64| point(results, "uniform", name, |c| c.expert_share == cut);
    rows(&mut text, &[REAP, IN_TURN], &SHARES, cell);
    for cut in SHARES {
        let place = format!("At {} %", 100.0 * cut);
        text.push_str(&verdict(&place, IN_TURN, &[REAP, IN_TURN], |name| cell(name, cut)));
    }
    text.push('\n');
    for run in runs {
        let other = results.runs.iter().find(|other| {
            let of = (other.table.as_str(), other.name.as_str(), other.seed);
            of == ("uniform", REAP, run.seed) && other.cut.expert_share == run.cut.expert_share
        });
        let Some(other) = other else { continue };
        let common =
            |(a, b): (&Vec<usize>, &Vec<usize>)| a.iter().filter(|e| b.contains(e)).count();
        let same: Vec<String> = run
            .cut
            .kept
            .iter()
            .zip(&other.cut.kept)
            .map(|pair| format!("{} of {}", common(pair), pair.0.len()))
            .collect();
        let _ = writeln!(
            text,
            "- Seed {}, {} %: by layer, both keep {}.",
            run.seed,
            100.0 * run.cut.expert_share,
            same.join(", ")
        );
    }
    text + END
}

const HEAD: &str = "## Statistics of the model as it loses experts

`--expert-statistics sequential` observes each layer on what the layers before it give without the experts that they lost, and chooses
by that ([method.md](method.md#sequential-statistics-of-experts)). It takes a second run of each layer. The same number in every layer, by
REAP.

";
