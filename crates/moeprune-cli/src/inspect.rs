//! `moeprune inspect`

use std::path::PathBuf;

use clap::Args;
use moeprune_checkpoint::Summary;

use crate::{
    options::FamilyArgs,
    table::{bytes, percent, table},
};
use moeprune::Error;

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
    family: FamilyArgs,
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Error> {
    let summary = args.family.open(&args.model)?.summary();
    if args.json {
        line!("{}", crate::print::json(&summary)?)
    } else {
        crate::print::print(&render(&summary))
    }
}

fn render(summary: &Summary) -> String {
    let experts = match summary.experts_per_layer.as_slice() {
        [first, rest @ ..] if rest.iter().all(|n| n == first) => format!("{first} in each"),
        counts => format!("{counts:?}"),
    };
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
    let all: u64 = summary.roles.iter().map(|role| role.elements).sum();
    let row = |name: &str, tensors: usize, elements: u64, size: u64| {
        let share = percent(elements as f64 / all.max(1) as f64);
        vec![name.to_owned(), tensors.to_string(), elements.to_string(), share, bytes(size)]
    };
    let mut rows: Vec<Vec<String>> = summary
        .roles
        .iter()
        .map(|role| row(role.role, role.tensors, role.elements, role.bytes))
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
    text
}
