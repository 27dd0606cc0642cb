//! What a model and the usual cuts of it are for serving, as tables.

use moeprune::serving::{Cut, EngineContainer, Serving, Verdict, YesNo};

use crate::table::{bytes, table};

/// The tables of `inspect`.
pub(crate) fn render(serving: &Serving) -> String {
    let mut text = cuts(serving);
    for refused in &serving.impossible {
        text += &format!("without {}: {}\n", share(refused.removed), refused.because);
    }
    for sentence in serving
        .groups
        .iter()
        .map(|groups| groups.sentence())
        .chain(serving.extra.iter().map(|extra| extra.sentence()))
        .chain(serving.unnamed.iter().cloned())
    {
        text += &(sentence + "\n");
    }
    text.push('\n');
    text + &engines(serving)
}

fn share(removed: f64) -> String {
    format!("{:.0} %", 100.0 * removed)
}

fn name(cut: &Cut) -> String {
    if cut.removed == 0.0 { "as it is".into() } else { format!("without {}", share(cut.removed)) }
}

fn cuts(serving: &Serving) -> String {
    let row = |cut: &Cut| {
        let experts = match cut.experts[..] {
            [] => "none".into(),
            [count] => count.to_string(),
            _ => "differ".into(),
        };
        let sizes = |sizes: &[usize]| {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            if sizes.is_empty() { "-".into() } else { sizes.join(" ") }
        };
        let parallel = &cut.parallel;
        vec![
            name(cut),
            experts,
            bytes(cut.weight_bytes),
            sizes(&parallel.experts),
            sizes(&parallel.tensors),
        ]
    };
    let rows: Vec<Vec<String>> = serving.cuts.iter().map(row).collect();
    let header =
        ["experts", "per layer", "weights, disk and memory", "divide by EP", "widths by TP"];
    table(&header, &rows)
}

/// A row per engine, then what there is to say of it.
fn engines(serving: &Serving) -> String {
    let Some(as_it_is) = serving.cuts.first() else { return String::new() };
    let row = |(number, verdict): (usize, &Verdict)| {
        let of = |cut: &Cut| answer(cut.engines[number].loads).to_owned();
        let first = [verdict.engine.clone(), verdict.version.clone()];
        first.into_iter().chain(serving.cuts.iter().map(of)).collect()
    };
    let rows: Vec<Vec<String>> = as_it_is.engines.iter().enumerate().map(row).collect();
    let names: Vec<String> = serving.cuts.iter().map(name).collect();
    let header: Vec<&str> =
        ["loads it", "version"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let mut text = table(&header, &rows);
    for number in 0..as_it_is.engines.len() {
        for line in notes(serving, number) {
            text += &(line + "\n");
        }
    }
    text
}

fn answer(loads: YesNo) -> &'static str {
    match loads {
        YesNo::Yes => "yes",
        YesNo::No => "no",
        YesNo::Unknown => "unknown",
    }
}

/// What there is to say of an engine, each sentence once.
fn notes(serving: &Serving, number: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for verdict in serving.cuts.iter().map(|cut| &cut.engines[number]) {
        let converted = verdict.container == EngineContainer::Gguf && verdict.converts;
        let said = converted && verdict.loads != YesNo::No;
        let said = said.then(|| "once converted to GGUF".to_owned());
        for note in said.iter().chain(&verdict.notes).chain(&verdict.rules) {
            let line = format!("{}: {note}", verdict.engine);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}
