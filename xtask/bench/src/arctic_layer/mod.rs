/*!
`moeprune-bench arctic-layer`: what this machine makes of a layer of Arctic's size.

A layer of random weights and random calibration tokens are made (`layer`); each step of pruning
it is timed by itself, then the default pipeline runs over it as it would over a model (`pipeline_bench`).
What is measured stands beside what the same machine does at most in the same minute: copies,
products of the same shapes, the disk (`ceilings`), and beside PyTorch where it is installed
(`torch_peer`).
*/

mod ceiling;
mod ceilings;
#[cfg(feature = "cuda")]
mod cuda;
mod disk;
mod layer;
mod outcome;
mod pipeline_bench;
mod projection;
mod show;
mod torch_peer;

pub(crate) use torch_peer::{PEER_SCRIPT, Seconds, Worker, has_torch, processor};

use std::path::PathBuf;

use clap::Args;
use moeprune_files::{OutputKind, RunFiles};

use self::{layer::Layer, outcome::Outcome, pipeline_bench::How};
use moeprune::{FromRecipe, Pipeline, Recipe, recipe::StageChoice};
use moeprune_cli::{DeviceArgs, Terminal, positive};

/// Prune one decoder layer of Snowflake Arctic: 128 experts, 27.3 GB
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune-bench arctic-layer --device cuda --dir /nvme/arctic-layer --json layer.json
  moeprune-bench arctic-layer --experts 4 --samples 2 --seq-len 128     a 32nd of it, on the CPU
  moeprune-bench arctic-layer --experts 8 --scale 32 --samples 4 --seq-len 64     in seconds")]
pub(crate) struct ArcticLayerArgs {
    /// Experts of the layer
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    experts: usize,
    /// Divide every width by this
    #[arg(long, value_name = "F", default_value_t = 1, value_parser = positive)]
    scale: usize,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    samples: usize,
    /// Tokens in a block
    #[arg(long, value_name = "T", default_value_t = 2048, value_parser = positive)]
    seq_len: usize,
    /// How the ratio is split over the layers; owl costs one more pass, also over one layer
    #[arg(long, value_name = "ALLOCATION", default_value = "owl", value_parser = str::parse::<StageChoice>)]
    allocation: StageChoice,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for the layer and for what is written; the layer is kept there and used again
    /// [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR", help_heading = "Places")]
    dir: Option<PathBuf>,
    /// Folder on a file system in memory, for the run from host memory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm", help_heading = "Places")]
    memory_dir: PathBuf,
    /// Python with torch, to time the published operations; skipped where it is not there
    #[arg(long, value_name = "PROGRAM", default_value = "python3", help_heading = "Places")]
    python: PathBuf,
    /// Write all numbers here too
    #[arg(long, value_name = "FILE", help_heading = "Places")]
    json: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// If the layer cannot be made or pruned, or the JSON file cannot be written.
pub(crate) fn measure(args: &ArcticLayerArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let mut files = RunFiles::new();
    if let Some(dir) = &args.dir {
        Layer::name_files(args, dir, &mut files);
    }
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Bench)?;
    let execution = args.device.open()?;
    let mut recipe = Recipe::arctic();
    recipe.calibration.samples = args.samples;
    recipe.calibration.sequence_len = args.seq_len;
    recipe.weights.allocation = args.allocation.clone();
    recipe.check()?;
    moeprune_cli::listen_for_stop();
    let layer = Layer::make(args, &recipe, terminal)?;
    let pipeline = Pipeline::from_recipe(&recipe)?;
    let how = How { recipe: &recipe, pipeline: &pipeline, execution: &execution };
    let outcome = Outcome::measure(args, &layer, how, terminal)?;
    let shown = show::show(&outcome);
    if let Some(json) = json {
        let text = moeprune_cli::json(&outcome)?;
        json.write(|file| file.write_all(text.as_bytes()))?;
    }
    Ok(shown?)
}
