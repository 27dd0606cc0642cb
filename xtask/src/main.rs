//! Repository chores: `cargo xtask COMMAND`.
#![expect(clippy::print_stdout, reason = "commands print their results")]

mod bench_peers;
mod embedded;
mod prune_arctic;
mod readme_results;
mod train_nano;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Repository chores", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    BenchPeers(bench_peers::Arguments),
    PruneArctic(Box<prune_arctic::PruneArcticArgs>),
    ReadmeResults(readme_results::ReadmeResultsArgs),
    TrainNano(train_nano::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::BenchPeers(arguments) => bench_peers::run(&arguments),
        Command::PruneArctic(arguments) => prune_arctic::run(&arguments),
        Command::ReadmeResults(arguments) => readme_results::run(&arguments),
        Command::TrainNano(arguments) => train_nano::run(&arguments),
    }
}
