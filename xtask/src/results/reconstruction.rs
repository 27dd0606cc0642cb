//! The section on choosing experts by what a layer loses, with what that costs.

use std::{collections::BTreeSet, fmt::Write as _};

use moeprune::{core::ModelSpec, engine::active_parameters};

use super::{
    CUTS, RECONSTRUCTION, Results,
    tables::{head, point, rows},
};

/// Before and after the section in docs/results.md, so that it can be measured again by itself.
pub(super) const BEGIN: &str = "<!-- reconstruction begin -->\n";
pub(super) const END: &str = "<!-- reconstruction end -->\n";

/// Tokens per layer that the criterion looks at, if there are as many.
const TOKENS: u64 = 2048;

pub(super) fn render(results: &Results, spec: &ModelSpec) -> String {
    let runs = results.runs.iter().filter(|run| run.name == RECONSTRUCTION);
    let seeds: BTreeSet<u64> = runs.map(|run| run.seed).collect();
    let mut text = format!("{BEGIN}{HEAD}Seeds: {seeds:?}.\n\n");
    head(&mut text, RECONSTRUCTION, &CUTS);
    let names = ["the same number in every layer", "one budget over all layers"];
    let cell = |name: &str, cut: f64| {
        let table = if name == names[0] { "uniform" } else { "global" };
        point(results, table, RECONSTRUCTION, |c| c.expert_share == cut)
    };
    rows(&mut text, &names, &CUTS, cell);
    cost(&mut text, spec, results.calibration_tokens);
    text + END
}

/// Operations, in billions, by docs/method.md.
fn cost(text: &mut String, spec: &ModelSpec, tokens: u64) {
    let pass = 2.0 * tokens as f64 * active_parameters(spec) / 1e9;
    let own = |cut: f64| -> f64 {
        let layers = spec.layers.iter().enumerate();
        let moe = layers.filter_map(|(layer, of)| Some((layer, of.moe()?)));
        let of_layer = |(layer, moe): (usize, &moeprune::core::MoeSpec)| {
            let linears = spec.linears(layer);
            let expert = linears.iter().filter(|linear| linear.id.expert() == Some(0));
            let parameters: u64 = expert.map(|linear| linear.parameters()).sum();
            let removed = (cut * moe.experts as f64).round() as usize;
            let reached = moe.experts.min(moe.top_k + removed) as f64;
            let of_token = reached * 2.0 * parameters as f64 + reached.powi(2) * spec.hidden as f64;
            TOKENS.min(tokens) as f64 * of_token / 1e9
        };
        moe.map(of_layer).sum()
    };
    let _ = writeln!(
        text,
        "What choosing costs, in 10⁹ operations, with {tokens} calibration tokens:\n"
    );
    head(text, "cost", &CUTS);
    let row = |text: &mut String, name: &str, of: &dyn Fn(f64) -> f64| {
        let cells: Vec<String> = CUTS.iter().map(|&cut| format!("{:.1}", of(cut))).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    row(text, "the observation, which all others take", &|_| pass);
    row(text, "`reconstruction` besides: its own pass", &|_| pass);
    row(text, "and outputs and their products, at 2048 tokens per layer", &own);
    text.push('\n');
}

const HEAD: &str = "## Choosing by what a layer loses, and its cost

`reconstruction` drops one expert after the other, each time the one that the layer's output misses least
([method.md](method.md#other-criteria) has the rule). The others stand in the tables above. It runs the model once more to choose, and computes what all
experts that a token can be sent to make of it. Operations are counted by the shapes; seconds, measured once, stand in method.md.

";
