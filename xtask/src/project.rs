//! `cargo xtask project`: what the largest models would take on machines that it was not run on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use moeprune::{
    Estimate, Estimates, FromRecipe as _, Pipeline, Rates, Recipe, checkpoint::Checkpoint,
};
use moeprune_cli::{bytes, seconds, table};

use crate::delegate;

/// Print a projection of what observing and pruning the largest models takes on a large server and on one GPU
///
/// Nothing is run: bytes and operations follow from the true shapes of the models and from the default recipe, and
/// rates are what you say. One core's rate of products is to be measured (`cargo xtask bench-products`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask project
  cargo xtask project --model kimi-k2 --cores 96 --core-rate 250 --serial 0.01")]
pub(crate) struct ProjectArgs {
    /// A published model, by the names of make-checkpoint; may be repeated
    #[arg(long, value_name = "NAME", default_values = ["arctic", "deepseek-v3", "kimi-k2"])]
    model: Vec<String>,
    /// Folder that files with the models' headers are made in and removed from
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    scratch: PathBuf,
    /// Cores of the server
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    cores: u32,
    /// What products do on one of its cores, GFLOP/s
    #[arg(long, value_name = "GFLOP/s", default_value_t = 100.0, value_parser = positive)]
    core_rate: f64,
    /// Share of a run on one core that is not divided among cores
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    serial: f64,
    /// What the server's disks read and write, GB/s
    #[arg(long, value_name = "GB/s", default_value_t = 7.0, value_parser = positive)]
    disk_rate: f64,
    /// What products do on the GPU, TFLOP/s
    #[arg(long, value_name = "TFLOP/s", default_value_t = 400.0, value_parser = positive)]
    gpu_rate: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is not between 0 and 1")),
    }
}

pub(crate) fn run(args: &ProjectArgs) -> Result<()> {
    let speedup = 1.0 / (args.serial + (1.0 - args.serial) / f64::from(args.cores));
    let disk = args.disk_rate * 1e9;
    let machines = [
        (format!("{} cores", args.cores), Rates { disk, compute: speedup * args.core_rate * 1e9 }),
        ("one GPU".to_owned(), Rates { disk, compute: args.gpu_rate * 1e12 }),
    ];
    line!(
        "A projection from shapes and rates; none of it was run.\n\
         {} cores of {} GFLOP/s with {} of a run not divided among them: {speedup:.1} times one core; one GPU of {} \
         TFLOP/s; disks of {} GB/s; calibration as the default recipe has it.\n",
        args.cores,
        args.core_rate,
        args.serial,
        args.gpu_rate,
        args.disk_rate
    )?;
    let scratch = tempfile::Builder::new().prefix("moeprune-project-").tempdir_in(&args.scratch)?;
    let mut rows = Vec::new();
    for name in &args.model {
        let model = scratch.path().join(name);
        make_headers(name, &model)?;
        let checkpoint = Checkpoint::open(&model)?;
        for (machine, rates) in &machines {
            rows.extend(rows_of(name, machine, &estimates(&checkpoint, *rates)?));
        }
    }
    let header = ["", "on", "reads", "writes", "operations", "disk", "products", "between"];
    line!("{}", table(&header, &rows))?;
    Ok(())
}

fn estimates(checkpoint: &Checkpoint, rates: Rates) -> Result<Estimates> {
    let recipe = Recipe::arctic();
    let pipeline = Pipeline::from_recipe(&recipe)?;
    Ok(Estimates::of(checkpoint, &recipe, &pipeline, rates)?)
}

/// A row for observing a model, and one for pruning it with that.
fn rows_of(name: &str, machine: &str, of: &Estimates) -> Vec<Vec<String>> {
    let steps = [("observe", of.observe), ("prune", of.prune)];
    let row = |(step, estimate): (&str, Option<Estimate>)| {
        let estimate = estimate?;
        let work = estimate.work;
        let computing = estimate.operations / of.rates.compute;
        let disk = estimate.seconds - computing;
        Some(vec![
            format!("{name} {step}"),
            machine.to_owned(),
            bytes(work.read),
            bytes(work.written),
            format!("{:.2} PFLOP", estimate.operations / 1e15),
            seconds(disk),
            seconds(computing),
            format!("{} and {}", seconds(disk.max(computing)), seconds(disk + computing)),
        ])
    };
    steps.into_iter().filter_map(row).collect()
}

/// Writes a model's files with holes for weights.
fn make_headers(name: &str, model: &Path) -> Result<()> {
    let mut command = delegate::command(&delegate::MAKE_CHECKPOINT);
    command.args(["--model", name, "--sparse"]).arg(model);
    let status = command.stdout(std::process::Stdio::null()).status()?;
    ensure!(status.success(), "make-checkpoint of {name} failed");
    Ok(())
}
