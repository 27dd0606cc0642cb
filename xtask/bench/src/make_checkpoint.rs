//! `cargo xtask make-checkpoint`: a model of a published form and any size, with random weights.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser},
};
use moeprune_cli::{Terminal, bytes, seconds};
use moeprune_files::{OutputKind, RunFiles};
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, disk_bytes, write_calibration_to, write_checkpoint,
};

use crate::synthesis::show;

/// Write a checkpoint of a published model's names and shapes with random weights
///
/// Without options that reduce it, the model has its true size: 957 GB for Arctic. The weights
/// depend on the seed and on nothing else: not on threads, shards or the size of the disk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask make-checkpoint --model arctic --layers 2 --experts 32 --scale 4 /tmp/arctic-small
  cargo xtask make-checkpoint --model mixtral-8x7b --scale 8 /tmp/mixtral-small \\
      --calibration /tmp/mixtral-small.jsonl --samples 16 --seq-len 128
  cargo xtask make-checkpoint --model kimi-k2 --sparse /tmp/kimi-headers")]
pub(crate) struct MakeCheckpointArgs {
    /// Which model's form
    #[arg(long, alias = "family", value_name = "MODEL", value_parser = models())]
    model: String,
    /// Directory to write; must not exist
    out: PathBuf,
    /// Decoder layers [default: as published]
    #[arg(long, value_name = "K")]
    layers: Option<usize>,
    /// Experts in each layer [default: as published]
    #[arg(long, value_name = "E")]
    experts: Option<usize>,
    /// Divide every width by this
    #[arg(long, value_name = "F", default_value_t = 1)]
    scale: usize,
    /// Rows of the embedding [default: as published]
    #[arg(long, value_name = "V")]
    vocab: Option<usize>,
    /// Seed of weights and calibration tokens
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Tensor bytes in a file
    #[arg(long, value_name = "N", default_value_t = 5_000_000_000)]
    max_shard_bytes: u64,
    /// Write routers and norms only and leave holes (zeros) for everything else, so that
    /// `inspect` and `plan` can be tried on a model larger than the disk
    #[arg(long)]
    sparse: bool,
    /// Also write calibration blocks of random tokens to this file; must not exist
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 128, requires = "calibration")]
    samples: usize,
    /// Tokens in a calibration block
    #[arg(long, value_name = "T", default_value_t = 2048, requires = "calibration")]
    seq_len: usize,
    /// Print results and errors only
    #[arg(long)]
    quiet: bool,
}

/// The models that are known, each with what it is.
pub(crate) fn models() -> PossibleValuesParser {
    let value = |model: &Published| {
        let alias = (*model == Published::Mixtral).then_some("mixtral");
        PossibleValue::new(model.name()).help(model.about()).aliases(alias)
    };
    Published::ALL.iter().map(value).collect::<Vec<_>>().into()
}

pub(crate) fn run(args: &MakeCheckpointArgs) -> Result<()> {
    let there = args.out.symlink_metadata().is_ok();
    ensure!(!there, "{} exists; remove it or choose another name", args.out.display());
    let mut files = RunFiles::new();
    files.makes(&args.out);
    let calibration =
        files.claim_if_asked("--calibration", args.calibration.as_deref(), OutputKind::Text)?;
    let began = Instant::now();
    let &MakeCheckpointArgs {
        layers, experts, vocab, scale, seed, sparse, max_shard_bytes, ..
    } = args;
    let published: Published = args.model.parse()?;
    let shape = Shape::new(published, &Reduction { layers, experts, vocab, scale })?;
    let options = Options { seed, max_shard_bytes, sparse };
    let mut terminal = Terminal::new(args.quiet);
    let files =
        write_checkpoint(&args.out, &shape, &options, &mut |step| show(step, &mut terminal))?;
    if let Some(calibration) = calibration {
        let &MakeCheckpointArgs { samples, seq_len, .. } = args;
        let vocab = shape.spec().vocab;
        calibration.write(|file| write_calibration_to(file, samples, seq_len, vocab, seed))?;
    }
    let written = disk_bytes(&shape, &options);
    let time = began.elapsed().as_secs_f64();
    line!(
        "wrote {} ({} bytes) of weights{} in {} file{} to {} in {}, {}/s",
        bytes(written),
        written,
        if sparse {
            format!(", {} with the holes,", bytes(shape.weight_bytes()))
        } else {
            String::new()
        },
        files,
        if files == 1 { "" } else { "s" },
        args.out.display(),
        seconds(time),
        bytes((written as f64 / time) as u64)
    )?;
    Ok(())
}
