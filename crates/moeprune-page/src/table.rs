//! All cuts in figures.

use maud::{Markup, html};

use crate::Cut;
use crate::quality_chart::accuracy_words;
use crate::series::Groups;
use crate::wording::{Unit, count, duration, percent, significant};

/// What a cut is judged by: greater is better.
type Merit = fn(&Cut) -> Option<f64>;

const ACCURACY: Merit = |cut| cut.accuracy.map(|accuracy| accuracy.mean);
const PERPLEXITY: Merit = |cut| cut.perplexity.map(|perplexity| -perplexity);

/// A column that is there if anything was measured for it.
struct Beside {
    title: &'static str,
    /// What it is in.
    unit: &'static str,
    of: fn(&Cut) -> Option<String>,
}

/// What is measured beside accuracy and perplexity.
const BESIDE: [Beside; 5] = [
    Beside {
        title: "KL to the original",
        unit: "nats per token",
        of: |cut| cut.divergence.map(|found| significant(found.kl)),
    },
    Beside {
        title: "same top token",
        unit: "as the original",
        of: |cut| cut.divergence.map(|found| percent(found.agreement)),
    },
    Beside { title: "ended", unit: "of answers", of: |cut| Some(percent(cut.texts?.ended?)) },
    Beside { title: "loops", unit: "of answers", of: |cut| Some(percent(cut.texts?.looping)) },
    Beside {
        title: "distinct-4",
        unit: "of groups",
        of: |cut| Some(percent(cut.texts?.distinct_4?)),
    },
];

/// Which columns there are, and in which units.
struct Columns<'a> {
    unpruned: Option<&'a Cut>,
    accuracy: bool,
    perplexity: bool,
    beside: Vec<&'static Beside>,
    total: bool,
    parameters: Unit,
    bytes: Unit,
}

impl Columns<'_> {
    fn number(&self) -> usize {
        let optional = [self.total, self.accuracy, self.perplexity];
        6 + optional.into_iter().map(usize::from).sum::<usize>() + self.beside.len()
    }
}

/// The table, criterion by criterion; nothing if there are no cuts.
pub(crate) fn cut_table(groups: &Groups<'_>) -> Option<Markup> {
    groups.all().next()?;
    let columns = Columns {
        unpruned: groups.unpruned,
        accuracy: groups.all().any(|cut| cut.accuracy.is_some()),
        perplexity: groups.all().any(|cut| cut.perplexity.is_some()),
        beside: BESIDE.iter().filter(|it| groups.all().any(|cut| (it.of)(cut).is_some())).collect(),
        total: groups.pruned().any(|cut| cut.total_share > 0.0),
        parameters: Unit::for_up_to(groups.all().map(|cut| cut.parameters).max().unwrap_or(0)),
        bytes: Unit::for_up_to(groups.all().map(|cut| cut.bytes).max().unwrap_or(0)),
    };
    let starred = groups
        .pruned()
        .any(|cut| [ACCURACY, PERPLEXITY].iter().any(|it| is_best(cut, groups, *it)));
    Some(html! {
        div.scroll tabindex="0" role="region" aria-label="All cuts in figures" {
            table {
                (head(&columns))
                @if let Some(cut) = groups.unpruned {
                    tbody { (row(cut, "unpruned", &columns, groups)) }
                }
                @for series in &groups.series {
                    tbody {
                        tr.group {
                            th scope="rowgroup" colspan=(columns.number()) {
                                span { (series.mark()) " " bdi { (series.name) } }
                            }
                        }
                        @for cut in &series.cuts {
                            (row(cut, &percent(cut.expert_share), &columns, groups))
                        }
                    }
                }
            }
        }
        @if starred {
            p.note {
                span.best-key { "★" } " the best of the criteria at the same asked sizes. "
                @if columns.accuracy {
                    "Accuracies closer than about two standard errors may differ by chance."
                }
            }
        }
    })
}

fn head(columns: &Columns<'_>) -> Markup {
    let unit = |unit: &str| html! { @if !unit.is_empty() { br; small { (unit) } } };
    html! {
        thead {
            tr {
                th scope="col" { "experts" br; "removed" }
                @if columns.total { th scope="col" { "total" br; "sparsity" } }
                @if columns.accuracy { th scope="col" { "accuracy" br; small { "± standard error" } } }
                @if columns.perplexity { th scope="col" { "perplexity" } }
                @for beside in &columns.beside {
                    th scope="col" { (beside.title) br; small { (beside.unit) } }
                }
                th scope="col" { "experts" br; "kept" }
                th scope="col" { "parameters" (unit(columns.parameters.parameters)) }
                @if columns.unpruned.is_some() { th scope="col" { "of the" br; "original" } }
                @else { th scope="col" { "bytes per" br; "parameter" } }
                th scope="col" { "weights" (unit(columns.bytes.bytes)) }
                th scope="col" { "time" }
            }
        }
    }
}

fn row(cut: &Cut, name: &str, columns: &Columns<'_>, groups: &Groups<'_>) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            @if columns.total {
                td { @if cut.total_share > 0.0 { (percent(cut.total_share)) } @else { "–" } }
            }
            @if columns.accuracy {
                (quality(cut.accuracy.map(accuracy_words), is_best(cut, groups, ACCURACY)))
            }
            @if columns.perplexity {
                (quality(cut.perplexity.map(significant), is_best(cut, groups, PERPLEXITY)))
            }
            @for beside in &columns.beside { td { ((beside.of)(cut).unwrap_or_else(|| "–".to_owned())) } }
            td { (count(cut.experts_kept)) " of " (count(cut.experts)) }
            td { (columns.parameters.text(cut.parameters)) }
            td {
                @match columns.unpruned {
                    Some(unpruned) => (part(cut.parameters, unpruned.parameters)),
                    None => (ratio(cut.bytes, cut.parameters)),
                }
            }
            td { (columns.bytes.text(cut.bytes)) }
            td { @if cut.seconds > 0.0 { (duration(cut.seconds)) } @else { "–" } }
        }
    }
}

fn part(value: u64, whole: u64) -> String {
    if whole == 0 { "–".to_owned() } else { percent(value as f64 / whole as f64) }
}

fn ratio(bytes: u64, parameters: u64) -> String {
    if parameters == 0 { "–".to_owned() } else { significant(bytes as f64 / parameters as f64) }
}

/// Whether no cut of the same asked sizes is better, and there is one by another criterion.
fn is_best(cut: &Cut, groups: &Groups<'_>, merit: Merit) -> bool {
    let Some(own) = merit(cut) else { return false };
    let alike = |other: &&Cut| {
        other.expert_share == cut.expert_share && other.total_share == cut.total_share
    };
    let mut rivals = groups.pruned().filter(alike).filter_map(|other| Some((other, merit(other)?)));
    let contested = rivals.clone().any(|(other, _)| other.criterion != cut.criterion);
    contested && !cut.is_unpruned() && rivals.all(|(_, merit)| merit <= own)
}

/// A measurement, marked if it is the best.
fn quality(value: Option<String>, best: bool) -> Markup {
    html! {
        td.best[best] {
            @if best { span title="best at this size" aria-label="best" { "★ " } }
            @match value {
                Some(value) => (value),
                None => { span.none { "not measured" } }
            }
        }
    }
}
