//! The whole page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::check::check;
use crate::layer::layer_section;
use crate::quality_chart::{accuracy_chart, perplexity_chart};
use crate::series::Groups;
use crate::sparsity_chart::sparsity_charts;
use crate::table::cut_table;
use crate::wording::{SizeLabels, count, shortened};
use crate::{Comparison, Error};

const STYLE: &str = include_str!("style.css");

/// Nothing is fetched and no script runs, with any name in the comparison.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The comparison as one HTML page that needs nothing but itself.
///
/// The same comparison gives the same bytes.
///
/// # Errors
/// If the comparison has another format, holds a number that is not finite or cannot be what it is
/// said to be, or has lists that do not fit each other; the error says which. What was not measured
/// is no error: the page says so.
pub fn render(comparison: &Comparison) -> Result<String, Error> {
    check(comparison)?;
    let groups = Groups::of(comparison);
    let charts = [accuracy_chart(&groups)?, perplexity_chart(&groups)?];
    let charts: Vec<Markup> = charts.into_iter().flatten().collect();
    let sparsity = sparsity_charts(&groups)?;
    let layers = (comparison.layers.iter().enumerate())
        .map(|(place, picture)| layer_section(picture, place, &groups))
        .collect::<Result<Vec<_>, _>>()?;
    let body = html! {
        header { (heading(comparison)) }
        main {
            section {
                h2 { "Quality against size" }
                @if charts.is_empty() {
                    p.none { "Neither accuracy nor perplexity was measured." }
                } @else {
                    (legend(&groups))
                    div.grid.wide { @for chart in &charts { (chart) } }
                }
            }
            section {
                h2 { "All cuts" }
                @match cut_table(&groups) {
                    Some(table) => (table),
                    None => { p.none { "The comparison holds no cuts." } }
                }
            }
            section {
                h2 { "Sparsity of each decoder layer" }
                @match &sparsity {
                    Some(charts) => {
                        p.note { "Lines are labelled with " (SizeLabels::of(groups.pruned()).meaning()) "." }
                        (charts)
                    }
                    None => { p.none { "No sparsity per layer was recorded." } }
                }
            }
            section {
                h2 { "Experts of each MoE layer" }
                @if layers.is_empty() {
                    p.none { "No layer was pictured." }
                }
                @for layer in &layers { (layer) }
            }
        }
        footer { p { "Made by " bdi { (comparison.tool) } "." } }
    };
    Ok(document(&comparison.model, &body).into_string())
}

/// The body in a document that may load nothing.
fn document(model: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (shortened(model, 80)) ": prunings compared" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

fn heading(comparison: &Comparison) -> Markup {
    let measured = comparison.task.is_some() || comparison.metric.is_some();
    html! {
        p.kicker { "Prunings compared" }
        h1 { bdi { (comparison.model) } }
        dl.facts {
            (fact("family", &html! { bdi { (comparison.family) } }))
            (fact("observed on", &html! {
                @if comparison.observed.is_empty() { span.none { "nothing" } }
                @for (place, corpus) in comparison.observed.iter().enumerate() {
                    @if place > 0 { ", " }
                    bdi { (corpus) }
                }
            }))
            @if measured {
                (fact("measured", &html! {
                    @if let Some(task) = &comparison.task { bdi { (task) } } @else { "accuracy" }
                    @if let Some(metric) = &comparison.metric { ", " bdi { (metric) } }
                }))
            }
            @if let Some(data) = &comparison.data { (fact("data", &html! { bdi { (data) } })) }
            @if let Some(documents) = comparison.documents {
                (fact("documents", &html! { (count(documents)) }))
            }
            (fact("computed on", &html! { bdi { (comparison.device) } }))
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn legend(groups: &Groups<'_>) -> Markup {
    html! {
        ul.legend aria-label="Criteria" {
            @if groups.unpruned.is_some() {
                li {
                    svg.mark viewBox="-16 -16 32 32" aria-hidden="true" {
                        path d="M-16,0H16" stroke="#57606A" stroke-width="3" {}
                        circle r="9" fill="#1B1F24" {}
                    }
                    " unpruned"
                }
            }
            @for series in &groups.series {
                li { (series.mark()) " " bdi { (series.name) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::STYLE;
    use crate::canvas::{GRID, INK, MUTED};
    use crate::series::COLOURS;

    #[test]
    fn the_dark_theme_swaps_every_colour_of_the_charts() {
        for colour in COLOURS.into_iter().chain([GRID, INK, MUTED]) {
            for attribute in ["fill", "stroke"] {
                let rule = format!("svg [{attribute}=\"{colour}\"]{{{attribute}:");
                assert!(STYLE.contains(&rule), "{rule}");
            }
        }
    }
}
