//! `moeprune merge`

use std::path::PathBuf;

use clap::Args;
use moeprune::Error;
use moeprune_capture::{merge_parts, write_observation_to};
use moeprune_core::plural;
use moeprune_files::{OutputKind, RunFiles};

/// Options of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune observe mixtral-8x7b --calibration c4.json.gz --part 1/2 -o part-1.safetensors
  moeprune observe mixtral-8x7b --calibration c4.json.gz --part 2/2 -o part-2.safetensors
  moeprune merge part-1.safetensors part-2.safetensors -o mixtral.obs.safetensors

The result has the bytes that one run writes. No model is run. Observations of different texts are weighed by
`moeprune blend`.")]
pub(crate) struct MergeArgs {
    /// All parts, in any order: what `observe --part` stored
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// Where the observation goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn merge(args: &MergeArgs) -> Result<(), Error> {
    let mut files = RunFiles::new();
    files.reads_all(&args.parts);
    let output = files.claim("-o", &args.output, OutputKind::Observation)?;
    let observation = merge_parts(&args.parts)?;
    crate::interrupt::deliver(&output, |file| write_observation_to(&observation, file))?;
    let parts = plural(args.parts.len(), "part");
    let tokens: u64 = observation.corpora.iter().map(|corpus| corpus.tokens()).sum();
    line!("merged {parts}, {tokens} tokens → {}", args.output.display())
}
