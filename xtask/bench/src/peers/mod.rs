//! `moeprune-bench peers`: this program and others, on the same input, pinned to the same cores, in turns.
//!
//! Without `--with`, masks of one matrix beside PyTorch's ([`masks`]); with it, whole prunings ([`race`]).

mod agreement;
mod environment;
mod masks;
mod outcome;
mod race;
mod sides;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use moeprune_cli::Terminal;

pub(crate) use environment::moeprune;
use masks::{MaskArguments, Turns};
use race::RaceArguments;
use sides::Peer;

/// Time Wanda masks beside PyTorch's, or whole prunings beside other programs (--with)
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask bench-peers --python PYTHON_WITH_TORCH
  cargo xtask bench-peers --with llm-compressor --install
  cargo xtask bench-peers --with llm-compressor --python PYTHON --methods reap,wanda,sparsegpt
  cargo xtask bench-peers --with reap --reap CHECKOUT --reap-python PYTHON --model mixtral-8x7b --scale 16")]
pub(crate) struct Arguments {
    /// Race whole prunings against these: llm-compressor, reap (the code that its authors published)
    #[arg(long, value_name = "PEERS", value_delimiter = ',', value_enum)]
    with: Vec<Peer>,
    /// Python with the packages of the peer [default: python3; with --with, the environment that --install makes]
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Runs of each side [default: 5, with --with 3]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Numbers of threads, and of cores, to run with; with --with the first [default: 1,2, with --with 2]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    #[command(flatten, next_help_heading = "Masks")]
    masks: MaskArguments,
    #[command(flatten, next_help_heading = "Whole prunings (--with)")]
    race: RaceArguments,
}

pub(crate) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let or = |default: &[usize]| match arguments.threads.as_slice() {
        [] => default.to_vec(),
        given => given.to_vec(),
    };
    if arguments.with.is_empty() {
        let turns = Turns {
            python: arguments.python.clone().unwrap_or_else(|| "python3".into()),
            pairs: arguments.pairs.unwrap_or(5),
            threads: or(&[1, 2]),
        };
        return masks::run(&arguments.masks, &turns);
    }
    let turns = race::Turns {
        python: arguments.python.as_deref(),
        pairs: arguments.pairs.unwrap_or(3),
        threads: or(&[2]).first().copied().unwrap_or(2),
    };
    race::run(&arguments.race, &arguments.with, turns, terminal)
}
