//! `moeprune inspect`

use std::{mem::ManuallyDrop, path::PathBuf};

use clap::Args;
use moeprune_checkpoint::{RoleStorage, Storage, Summary};
use serde::Serialize;

use crate::{
    options::FamilyArgs,
    rates::{RateArgs, said},
    table::{bytes, percent, table},
};
use moeprune::{
    Error, Estimate, Estimates, FromRecipe as _, Pipeline, Rates, Recipe, Registry, Said,
    repair_by_default, serving::Serving,
};

/// Options of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  moeprune inspect mixtral-8x7b --json | jq .parameters")]
pub(crate) struct InspectArgs {
    /// Directory of the model: config.json and *.safetensors
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Inspected {
    #[serde(flatten)]
    summary: Summary,
    serving: Serving,
    estimates: Estimates,
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Error> {
    // The process ends after this: to free a hundred thousand names one by one would take a tenth of the time.
    let checkpoint = ManuallyDrop::new(args.family.open(&args.model)?);
    let checkpoint = &*checkpoint;
    let mut recipe = Recipe::arctic();
    let said = Said { text: true, ..Said::default() };
    // As `prune` does; its notes are for those who prune.
    let _ = repair_by_default(&mut recipe, checkpoint, &Registry::built_in(), said);
    let pipeline = Pipeline::from_recipe(&recipe)?;
    let rates = args.rates.rates(Rates::default());
    let inspected = Inspected {
        summary: checkpoint.summary(),
        serving: Serving::of(checkpoint),
        estimates: Estimates::of(checkpoint, &recipe, &pipeline, rates)?,
    };
    if args.json {
        return line!("{}", crate::print::json(&inspected)?);
    }
    let Inspected { summary, serving, estimates } = &inspected;
    let parts = [render(summary), crate::serving::render(serving), render_estimates(estimates)];
    crate::print::print(&parts.join("\n"))
}

fn render_estimates(estimates: &Estimates) -> String {
    let row = |name: &str, estimate: &Option<Estimate>| {
        let estimate = estimate.as_ref()?;
        let (memory, disk) = (bytes(estimate.memory_bytes), bytes(estimate.disk_bytes));
        Some(vec![name.to_owned(), memory, disk, estimate.time()])
    };
    let repair = estimates.repair.as_ref().map(|repair| {
        let (memory, disk) = (bytes(repair.memory_bytes), bytes(repair.disk_bytes));
        vec!["  its repair of experts".to_owned(), memory, disk, repair.time()]
    });
    let rows: Vec<Vec<String>> = [
        row("observe", &estimates.observe),
        row("prune, by default", &estimates.prune),
        repair,
        row("apply, experts only", &estimates.apply_experts),
    ]
    .into_iter()
    .flatten()
    .collect();
    let header = ["about", "memory at most", "disk", "time"];
    let Estimates { samples, sequence_len, rates, .. } = estimates;
    format!(
        "{}for {samples} calibration blocks of {sequence_len} tokens on the CPU, at {}\n",
        table(&header, &rows),
        said(*rates)
    )
}

/// How many experts layers have: `256 in 58 of 61 layers`.
fn experts(per_layer: &[usize]) -> String {
    if let [first, rest @ ..] = per_layer
        && rest.iter().all(|count| count == first)
    {
        return format!("{first} in each");
    }
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for &count in per_layer.iter().filter(|&&count| count > 0) {
        match counts.iter_mut().find(|(known, _)| *known == count) {
            Some((_, layers)) => *layers += 1,
            None => counts.push((count, 1)),
        }
    }
    let all = per_layer.len();
    let each: Vec<String> = counts.iter().map(|(n, layers)| format!("{n} in {layers}")).collect();
    format!("{} of {all} layers", each.join(", "))
}

fn render(summary: &Summary) -> String {
    let experts = experts(&summary.experts_per_layer);
    let dtypes: Vec<&str> = summary.elements_by_dtype.keys().map(String::as_str).collect();
    let mut text = format!(
        "family    {}\nlayers    {}\nexperts   {experts}, top-{}\nhidden    {}\ndtype     {}\n\
         weights   {} in {} file{}\n\n",
        summary.family,
        summary.layers,
        summary.top_k,
        summary.hidden,
        dtypes.join(", "),
        bytes(summary.weight_bytes),
        summary.shards,
        if summary.shards == 1 { "" } else { "s" },
    );
    let all: u64 = summary.roles.iter().map(|role| role.parameters).sum();
    let row = |name: &str, tensors: usize, elements: u64, size: u64| {
        let share = percent(elements as f64 / all.max(1) as f64);
        vec![name.to_owned(), tensors.to_string(), elements.to_string(), share, bytes(size)]
    };
    let mut rows: Vec<Vec<String>> = summary
        .roles
        .iter()
        .map(|role| row(role.role, role.tensors, role.parameters, role.bytes))
        .collect();
    rows.push(row(
        "all",
        summary.roles.iter().map(|role| role.tensors).sum(),
        all,
        summary.roles.iter().map(|role| role.bytes).sum(),
    ));
    text += &table(&["role", "tensors", "parameters", "share", "bytes"], &rows);
    text += &format!(
        "\n{} parameters are decoder Linears: what --sparsity counts over\n",
        summary.parameters.linears
    );
    if let Some(storage) = &summary.storage {
        text += &render_storage(summary, storage);
    }
    text
}

/// In which forms weights are stored.
fn render_storage(summary: &Summary, storage: &Storage) -> String {
    let role = |role: &RoleStorage| format!("{} {}", role.role, role.forms.join(" and "));
    let roles: Vec<String> = storage.roles.iter().map(role).collect();
    let mut text = format!(
        "\nstored as {}; {:.2} bits per weight\n",
        roles.join(", "),
        storage.bits_per_weight
    );
    if summary.describes_itself {
        let by_type = summary.bytes_by_dtype.iter();
        let by_type: Vec<String> =
            by_type.map(|(dtype, count)| format!("{dtype} {}", bytes(*count))).collect();
        text += &format!("bytes by type: {}\n", by_type.join(", "));
        text += "a model of this format is cut and not run: whole experts can be removed, by router distance, a \
                 keep-list, or an observation of an imatrix or of the safetensors model; no weight is zeroed\n";
    } else if let Some(form) = &storage.undecoded {
        let why = match &storage.lacks {
            Some(lacks) => format!("cannot be decoded, since {lacks}"),
            None => "is not decoded yet".to_owned(),
        };
        text += &format!(
            "{form} {why}: whole experts can be removed by router distance or a keep-list; nothing that \
             runs the model works, nor zeroing weights\n"
        );
    }
    text
}
