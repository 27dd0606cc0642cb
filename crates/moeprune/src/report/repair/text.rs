//! The repair in a report as text.

use std::fmt::{self, Write as _};

use moeprune_core::plural;
use moeprune_core::repair::{ExpertOutcome, HeldOutError, RepairText, RepairedLayer};

use super::{RepairReport, RepairSummary, share};

/// What was made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two places of a repair")]
pub enum Repairing {
    /// Experts that went.
    Experts,
    /// Weights that were zeroed.
    Zeros,
}

impl Repairing {
    /// What a section on it is called.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Experts => "Repair",
            Self::Zeros => "Refit after weights were zeroed",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Experts => {
                "The down projections of the experts that stay were changed to make up for those that went"
            }
            Self::Zeros => {
                "What is left of the experts' down projections was changed to make up for the weights that \
                 were zeroed"
            }
        }
    }
}

/// Writes the section on the repair.
pub(in crate::report) fn write(
    report: &RepairReport,
    of: Repairing,
    text: &mut String,
) -> fmt::Result {
    writeln!(
        text,
        "\n## {}\n\n{}. What is missing of what a layer's experts wrote, as a share of its square:\n",
        of.title(),
        of.done()
    )?;
    write_texts(report, text)?;
    for warning in report.warnings() {
        writeln!(text, "\n{warning}")?;
    }
    write_experts(&report.summary, text)?;
    write_layers(report, text)
}

/// The mean error on each text.
fn write_texts(report: &RepairReport, text: &mut String) -> fmt::Result {
    let RepairReport { summary, texts, .. } = report;
    writeln!(text, "| tokens | blocks | before | after |\n|---|---|---|---|")?;
    let fitted: usize = texts.iter().map(|text| text.fitted).sum();
    let names: Vec<&str> = texts.iter().filter(|t| t.fitted > 0).map(name).collect();
    let HeldOutError { before, after } = summary.fitted;
    writeln!(
        text,
        "| fitted, of {} | {fitted} | {} | {} |",
        names.join(", "),
        share(before),
        share(after)
    )?;
    for (of, error) in texts.iter().zip(&summary.held_out) {
        let Some(HeldOutError { before, after }) = error else { continue };
        let (name, blocks) = (name(of), of.held_out);
        writeln!(
            text,
            "| held out, of {name} | {blocks} | {} | {} |",
            share(*before),
            share(*after)
        )?;
    }
    Ok(())
}

fn name(text: &RepairText) -> &str {
    &text.corpus.name
}

fn write_experts(summary: &RepairSummary, text: &mut String) -> fmt::Result {
    let RepairSummary { experts, without_tokens, reverted, growth, few_tokens, .. } = summary;
    let (changed, least) = (summary.changed, summary.least_tokens_per_column);
    let ridge = summary
        .ridge
        .map_or_else(String::new, |[least, most]| format!(" Ridge: {least:.2e} to {most:.2e}."));
    let reverted = match summary.has_held_out() {
        true => format!(", and {reverted} because new ones made held-out tokens worse"),
        false => {
            "; no tokens are held out, which would show new ones that make it worse".to_owned()
        }
    };
    writeln!(
        text,
        "\n{changed} of {} got new weights; {without_tokens} kept theirs because no fitted token \
         reaches them{reverted}. Fitted tokens per column: \
         at least {least:.1} in each expert, below 4 in {few_tokens}. The largest weight of an expert became up to \
         {growth:.1} times as large.{ridge}",
        plural(*experts, "expert")
    )?;
    if let Some(rounding) = summary.rounding_in_words() {
        writeln!(text, "\n{rounding}")?;
    }
    if !summary.reverted_layers.is_empty() {
        writeln!(
            text,
            "\nLayers that keep their weights as a whole, because held-out tokens got worse: {}.",
            summary.reverted_layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        )?;
    }
    Ok(())
}

fn write_layers(report: &RepairReport, text: &mut String) -> fmt::Result {
    let RepairReport { texts, layers, .. } = report;
    let sweeps = layers.iter().map(|layer| layer.repair.errors.len()).max().unwrap_or(1);
    let mut columns = vec!["layer".to_owned(), "before".to_owned()];
    columns.extend((1..sweeps).map(|sweep| format!("sweep {sweep}")));
    columns.extend(texts.iter().map(|text| format!("held out, {}", name(text))));
    columns.extend(
        ["ridge", "tokens per column", "no tokens", "kept old", "growth"].map(str::to_owned),
    );
    writeln!(text, "\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for layer in layers {
        writeln!(text, "| {} |", cells(layer, sweeps, texts.len()).join(" | "))?;
    }
    Ok(())
}

/// The row of a layer.
fn cells(layer: &RepairedLayer, sweeps: usize, texts: usize) -> Vec<String> {
    let experts = &layer.repair.experts;
    let count = |outcome| experts.iter().filter(|e| e.outcome == outcome).count().to_string();
    let refitted = || experts.iter().filter(|e| e.outcome == ExpertOutcome::Refitted);
    let ridges = || refitted().map(|e| e.ridge);
    let mut cells = vec![layer.repair.layer.to_string()];
    cells.extend((0..sweeps).map(|sweep| match layer.repair.errors.get(sweep) {
        Some(error) if layer.output > 0.0 => share(error / layer.output),
        _ => String::new(),
    }));
    cells.extend((0..texts).map(|text| match layer.held_out.get(text).copied().flatten() {
        Some(HeldOutError { before, after }) => format!("{} → {}", share(before), share(after)),
        None => String::new(),
    }));
    cells.push(match refitted().count() {
        0 => "-".into(),
        _ => format!(
            "{:.1e} to {:.1e}",
            ridges().fold(f64::MAX, f64::min),
            ridges().fold(0.0, f64::max)
        ),
    });
    cells.push(format!("{:.1}", layer.tokens_per_column));
    cells.push(count(ExpertOutcome::NoTokens));
    cells.push(match layer.repair.reverted {
        true => "all".into(),
        false => count(ExpertOutcome::Reverted),
    });
    cells.push(format!("{:.1}", experts.iter().map(|e| e.growth).fold(1.0, f64::max)));
    cells
}
