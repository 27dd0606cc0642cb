//! `cargo xtask scaling`: what a run costs per token, per expert and per layer, in instructions that are counted.

mod fit;
mod measured;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;
use moeprune_cli::table;

use self::{
    fit::{Cost, Fit},
    measured::{Case, Counted, Machine},
};
use crate::binary;

/// How far a formula may be from what was counted.
const WITHIN: f64 = 0.1;

/// Count the instructions of `observe` on models of several sizes and fit a formula of their cost
///
/// Instructions are counted by valgrind (callgrind), so they do not depend on what else the machine does. The models
/// have the form of Qwen3-30B-A3B at a quarter of its widths. Exits with 1 if the formula is more than a tenth from a
/// count.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cargo xtask scaling --scratch /tmp")]
pub(crate) struct ScalingArgs {
    /// Folder that models are made in and removed from
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    scratch: PathBuf,
    /// Threads of the runs that say which part of a run is divided among them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..))]
    threads: u16,
}

pub(crate) fn run(args: &ScalingArgs) -> Result<()> {
    if !measured::has_valgrind() {
        return Ok(line!("skipped: valgrind is not installed, which counts instructions")?);
    }
    let scratch = tempfile::Builder::new().prefix("moeprune-scaling-").tempdir_in(&args.scratch)?;
    let machine = Machine { moeprune: binary::build()?, scratch: scratch.path() };
    let mut counted = Vec::new();
    for case in Case::ALL {
        let (cost, count) = machine.count(*case, 1)?;
        line!("{case}: {:.2} G instructions, {:.1} MB read", count.billions(), count.megabytes())?;
        counted.push((*case, cost, count));
    }
    let pairs: Vec<(Cost, f64)> =
        counted.iter().map(|(_, cost, count)| (*cost, count.instructions as f64)).collect();
    let Some(fit) = Fit::of(&pairs) else { bail!("the cases do not determine a formula") };
    line!("\n{fit}\n")?;
    let rows: Vec<Vec<String>> =
        counted.iter().map(|(case, cost, count)| row(*case, &fit, cost, count)).collect();
    line!("{}", table(&["", "counted, G", "formula, G", "formula / counted"], &rows))?;
    threads(&machine, args.threads.into())?;
    let worst =
        pairs.iter().map(|(cost, count)| (fit.at(cost) / count - 1.0).abs()).fold(0.0, f64::max);
    line!("the formula is at most {:.1} % from a count", 100.0 * worst)?;
    ensure!(worst <= WITHIN, "a formula that is {:.1} % from a count", 100.0 * worst);
    Ok(())
}

fn row(case: Case, fit: &Fit, cost: &Cost, count: &Counted) -> Vec<String> {
    let formula = fit.at(cost);
    let numbers = [count.billions(), formula / 1e9, formula / count.instructions as f64];
    std::iter::once(case.to_string()).chain(numbers.map(|number| format!("{number:.3}"))).collect()
}

/// Says which part of a run's instructions the threads divide among them.
fn threads(machine: &Machine<'_>, threads: usize) -> Result<()> {
    let case = Case::LARGEST;
    let (_, one) = machine.count(case, 1)?;
    let (_, several) = machine.count(case, threads)?;
    let serial = several.of_first_thread as f64 / several.instructions as f64;
    line!(
        "{case}: with {threads} threads {:.3} times the instructions of one, {:.1} % of them in the thread that the \
         others wait for",
        several.instructions as f64 / one.instructions as f64,
        100.0 * serial
    )?;
    let (alone, together) = (machine.seconds(case, 1)?, machine.seconds(case, threads)?);
    line!(
        "{case}: {:.2} s with one thread, {:.2} s with {threads}: {:.2} times as fast (the best of 5 each, in turns)\n",
        alone,
        together,
        alone / together
    )?;
    Ok(())
}
