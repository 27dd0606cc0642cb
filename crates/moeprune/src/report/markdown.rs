//! The report as text.

use std::fmt::{self, Write as _};

use crate::recipe::ExpertStatistics;

use super::{Repairing, Report, SearchReport, StageReport, repair, texts};

/// Renders the whole report.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::from("# Pruning report\n\n");
    // Writing to a string cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, text: &mut String) -> fmt::Result {
    write_totals(report, text)?;
    write_layers(report, text)?;
    write_mass(report, text)?;
    write_exceptions(report, text)?;
    texts::write(report, text)?;
    if let Some(found) = &report.repair {
        repair::write(found, Repairing::Experts, text)?;
    }
    if let Some(found) = &report.refit {
        repair::write(found, Repairing::Zeros, text)?;
    }
    if let Some(search) = &report.search {
        write_search(search, text)?;
    }
    write_steps(&report.stages, text)?;
    for left_out in &report.left_out {
        writeln!(text, "\nNot copied: {} ({}).", left_out.file, left_out.reason)?;
    }
    if let Some(note) = &report.model.stored_otherwise {
        writeln!(text, "\nNote: {}.", note.trim_start_matches("note: "))?;
    }
    writeln!(
        text,
        "\nModel `{}`, {}. Written by {}. Recipe, seeds and hashes: `moeprune-report.json`.",
        report.model.family, report.model.fingerprint, report.tool
    )
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// What was removed and zeroed in all, and what that means for the files and for serving them.
fn write_totals(report: &Report, text: &mut String) -> fmt::Result {
    write_shares(report, text)?;
    write_savings(report, text)
}

/// What was removed and zeroed in all.
pub(crate) fn write_shares(report: &Report, text: &mut String) -> fmt::Result {
    let Report { sparsity, layers, .. } = report;
    writeln!(text, "| | requested | achieved |\n|---|---|---|")?;
    let got = sparsity.achieved;
    let (requested, requested_experts) = report.asked();
    writeln!(
        text,
        "| decoder Linears, removed and zero | {} | {} |",
        requested.map_or_else(String::new, percent),
        percent(got.linears)
    )?;
    if let Some(before) = sparsity.zero_before.filter(|before| *before > 0.0) {
        writeln!(text, "| of them zero before | | {} |", percent(before))?;
    }
    writeln!(text, "| experts' weights, removed and zero | | {} |", percent(got.experts))?;
    writeln!(text, "| all parameters, removed and zero | | {} |", percent(got.all))?;
    let before: usize = layers.iter().map(|l| l.experts_before).sum();
    let kept: usize = layers.iter().map(|l| l.kept.len()).sum();
    let removed = if before == 0 { 0.0 } else { 1.0 - kept as f64 / before as f64 };
    writeln!(
        text,
        "| experts removed | {} | {} |\n",
        requested_experts.map_or_else(|| "as the keep-list says".to_owned(), percent),
        percent(removed)
    )
}

/// What that means for the files and for serving them.
pub(crate) fn write_savings(report: &Report, text: &mut String) -> fmt::Result {
    let bytes = report.bytes;
    writeln!(
        text,
        "Weights on disk: {} bytes before, {} after ({:.1} % smaller).\n",
        bytes.before,
        bytes.after,
        100.0 * (1.0 - bytes.after as f64 / bytes.before.max(1) as f64)
    )?;
    for sentence in &report.serving {
        writeln!(text, "{sentence}\n")?;
    }
    Ok(())
}

fn write_layers(report: &Report, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "## Layers\n\n| layer | experts | kept | of them averages | unstructured ratio | achieved |\n\
         |---|---|---|---|---|---|"
    )?;
    let extra = report.extra.iter().flat_map(|extra| &extra.layers);
    for layer in report.layers.iter().chain(extra) {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            layer.index,
            layer.experts_before,
            layer.kept.len(),
            layer.merged.len(),
            layer.ratio.map_or_else(|| "-".into(), percent),
            percent(layer.achieved)
        )?;
    }
    let chosen = report.layers.iter().any(|layer| layer.kept.len() < layer.experts_before);
    if chosen && report.recipe.experts.statistics == ExpertStatistics::Sequential {
        writeln!(
            text,
            "\nThe experts of each layer were chosen by what it does once the layers before it have lost theirs."
        )?;
    }
    Ok(())
}

/// Layers whose experts weigh more, or less, now that there are fewer of them.
fn write_mass(report: &Report, text: &mut String) -> fmt::Result {
    let masses = report.layers.iter().filter_map(|layer| Some((layer.index, layer.routed_mass?)));
    let masses: Vec<_> = masses.collect();
    if masses.is_empty() && report.mass_unmeasured.is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "\n## Routed mass\n\nThe weights with which a token's experts are added up have another sum for \
         other experts (the router does not divide them by their sum, or multiplies them by a scale per \
         expert after that), so that it changes when experts go."
    )?;
    if let Some(why) = &report.mass_unmeasured {
        writeln!(text, "\n{why}")?;
    }
    if masses.is_empty() {
        return Ok(());
    }
    let of = if report.mass_unmeasured.is_none() { ", on the same inputs" } else { "" };
    writeln!(
        text,
        "\nMean over the calibration text, of all experts and of those that stay{of}:\n\n\
         | layer | before | after |\n|---|---|---|"
    )?;
    for (layer, mass) in masses {
        let after = mass.after.map_or_else(|| "not measured".into(), |after| format!("{after:.4}"));
        writeln!(text, "| {layer} | {:.4} | {after} |", mass.before)?;
    }
    Ok(())
}

/// Where the choice was arbitrary or had nothing to go by.
fn write_exceptions(report: &Report, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\nTies between equally good survivors: {}. Experts that no calibration token reached: \
         {}. Linears that too few tokens reached to be reconstructed, and were scored: {}.\n",
        report.ties,
        report.idle_experts.len(),
        report.scored_linears
    )?;
    if let Some(without) = &report.without_zero {
        writeln!(text, "Of the weights that were to be chosen from, {without}.\n")?;
    }
    for idle in &report.idle_experts {
        writeln!(text, "- idle: layer {} expert {}", idle.layer, idle.expert)?;
    }
    Ok(())
}

fn write_search(search: &SearchReport, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\n## Search\n\nNats a token on {} calibration blocks kept apart from the {} that were \
         observed; the unpruned model has {:.4}.\n\n| experts | criterion | allocation | nats | \
         difference's error | |\n|---|---|---|---|---|---|",
        search.held_out_blocks, search.observed_blocks, search.unpruned
    )?;
    for candidate in &search.candidates {
        writeln!(
            text,
            "| {} | {} | {} | {:.4} | {} | {} |",
            percent(candidate.expert_sparsity),
            candidate.criterion,
            candidate.allocation,
            candidate.nll,
            candidate.stderr_to_best.map_or_else(String::new, |e| format!("± {e:.4}")),
            if candidate.chosen { "chosen" } else { "" }
        )?;
    }
    Ok(())
}

/// What each step cost.
fn write_steps(stages: &[StageReport], text: &mut String) -> fmt::Result {
    writeln!(text, "\n## Steps\n\n| step | seconds | peak memory |\n|---|---|---|")?;
    for stage in stages {
        let memory = stage
            .peak_rss_bytes
            .map_or_else(|| "-".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        writeln!(text, "| {} | {:.1} | {memory} |", stage.name, stage.seconds)?;
    }
    Ok(())
}
