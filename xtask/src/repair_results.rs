//! `cargo xtask repair-results`: the tables of docs/repair.md, measured.

mod cells;
mod measure;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::checkpoint::Checkpoint;

use crate::embedded;
use cells::{Cell, Group};
use measure::{Bench, Measured};

/// Prune the models that `train-nano` makes, with and without repair, and print what is left of them
///
/// Each pruning that was measured is a file in --kept; run again, the command resumes.
#[derive(Debug, Args)]
pub(crate) struct RepairResultsArgs {
    /// A model and its directory as `train-nano` wrote it, once per model [default: the embedded one
    /// and those in target/arctic-scratch and target/sigmoid-shared]
    #[arg(long = "model", value_name = "NAME=DIR", value_parser = named)]
    models: Vec<(String, PathBuf)>,
    /// Texts of one kind of problems, as `train-nano --data-only` writes them
    #[arg(long, value_name = "DIR", default_value = "target/nano/data/kinds")]
    kinds: PathBuf,
    /// Only these groups of prunings
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Ask only the first N questions
    #[arg(long, value_name = "N", default_value_t = 300)]
    limit: usize,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "target/repair-results")]
    kept: PathBuf,
    /// Put the tables into docs/repair.md
    #[arg(long)]
    write: bool,
    /// Measure nothing: tables of what is kept
    #[arg(long)]
    tables: bool,
}

/// One model with what was measured of it.
struct Subject {
    name: String,
    measured: Vec<(Cell, Measured)>,
}

const BEGIN: &str = "<!-- repair-results begin -->\n";
const END: &str = "<!-- repair-results end -->";

pub(crate) fn run(args: &RepairResultsArgs) -> Result<()> {
    let models = models(args);
    if !args.tables {
        measure_all(args, &models)?;
    }
    let mut subjects = Vec::new();
    for (name, _) in &models {
        let mut measured = Vec::new();
        for (_, cell) in cells::all() {
            if let Some(found) = kept(&place(args, name, &cell))? {
                measured.push((cell, found));
            }
        }
        subjects.push(Subject { name: name.clone(), measured });
    }
    let text = tables::render(&subjects, args.limit);
    line!("{text}")?;
    if args.write {
        write(&embedded::root().join("docs/repair.md"), &text)?;
    }
    Ok(())
}

/// Measures what is not kept yet, the most telling prunings of all models first.
fn measure_all(args: &RepairResultsArgs, models: &[(String, PathBuf)]) -> Result<()> {
    let wanted = |group: &Group| args.only.is_empty() || args.only.contains(group);
    let mut left = Vec::new();
    for (group, cell) in cells::all().into_iter().filter(|(group, _)| wanted(group)) {
        for (name, dir) in models {
            let place = place(args, name, &cell);
            if kept(&place)?.is_none() {
                left.push((group, name, dir, cell.clone(), place));
            }
        }
    }
    let (began, all) = (Instant::now(), left.len());
    for (done, (_, name, dir, cell, place)) in left.into_iter().enumerate() {
        let bench = Bench {
            source: Checkpoint::open(dir)?,
            kinds: &args.kinds,
            limit: args.limit,
            scratch: args.kept.join(format!("pruned-{}", std::process::id())),
        };
        let measured = bench.measure(&cell).with_context(|| format!("{name}: {cell}"))?;
        eprintln!(
            "{}/{all} {name}, {cell}: {measured} ({:.0} s, {:.0} s in all)",
            done + 1,
            measured.seconds,
            began.elapsed().as_secs_f64()
        );
        keep(&place, &measured)?;
    }
    Ok(())
}

fn models(args: &RepairResultsArgs) -> Vec<(String, PathBuf)> {
    if !args.models.is_empty() {
        return args.models.clone();
    }
    let trained = ["arctic-scratch", "sigmoid-shared"]
        .map(|name| (name.to_owned(), embedded::root().join("target").join(name)));
    let trained = trained.into_iter().filter(|(_, dir)| dir.join("config.json").is_file());
    [("nano".to_owned(), embedded::model())].into_iter().chain(trained).collect()
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = text.split_once('=').ok_or("expected NAME=DIR")?;
    Ok((name.to_owned(), dir.into()))
}

/// The file of one result.
fn place(args: &RepairResultsArgs, model: &str, cell: &Cell) -> PathBuf {
    args.kept.join(model).join(format!("{}-n{}.json", cell.file_name(), args.limit))
}

fn kept(place: &Path) -> Result<Option<Measured>> {
    let Ok(bytes) = fs::read(place) else { return Ok(None) };
    let what = || format!("{} is of another version; remove it", place.display());
    serde_json::from_slice(&bytes).map(Some).with_context(what)
}

fn keep(place: &Path, measured: &Measured) -> Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = place.with_extension("partial");
    fs::write(&partial, serde_json::to_vec_pretty(measured)?)?;
    Ok(fs::rename(partial, place)?)
}

fn write(page: &Path, tables: &str) -> Result<()> {
    let text = fs::read_to_string(page)?;
    let (before, rest) = text.split_once(BEGIN).context("docs/repair.md has no tables")?;
    let (_, after) = rest.split_once(END).context("the tables of docs/repair.md have no end")?;
    fs::write(page, format!("{before}{BEGIN}{tables}{END}{after}"))?;
    Ok(())
}
