//! What a machine makes of moeprune's work, and models to measure on. `cargo xtask` builds it optimised and starts it; the
//! bundle for a machine with a GPU has it too.

/// Prints a line to standard output, formatted as by `format!`; a `Result`, as of [`moeprune_cli::print`].
macro_rules! line {
    ($($format:tt)*) => { moeprune_cli::print(&(format!($($format)*) + "\n")) };
}

#[cfg(target_os = "linux")]
mod arctic_layer;
#[cfg(target_os = "linux")]
mod decode;
#[cfg(target_os = "linux")]
mod linalg_rates;
#[cfg(target_os = "linux")]
mod make_checkpoint;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod products;
#[cfg(target_os = "linux")]
mod repair_layer;
#[cfg(target_os = "linux")]
mod runs;
#[cfg(target_os = "linux")]
mod spent;
#[cfg(target_os = "linux")]
mod synthesis;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moeprune_cli::Terminal;

#[derive(Parser)]
#[command(
    name = "moeprune-bench",
    version,
    about = "What this machine makes of moeprune's work",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(target_os = "linux")]
    ArcticLayer(Box<arctic_layer::ArcticLayerArgs>),
    #[cfg(target_os = "linux")]
    Decode(decode::DecodeArgs),
    #[cfg(target_os = "linux")]
    MakeCheckpoint(Box<make_checkpoint::MakeCheckpointArgs>),
    #[cfg(target_os = "linux")]
    Peers(Box<peers::Arguments>),
    #[cfg(target_os = "linux")]
    Products(products::ProductsArgs),
    #[cfg(target_os = "linux")]
    RepairLayer(repair_layer::RepairLayerArgs),
    #[cfg(target_os = "linux")]
    Runs(runs::RunsArgs),
}

fn main() -> ExitCode {
    let arguments: Arguments = match moeprune_cli::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let mut terminal = Terminal::new(arguments.quiet);
    match run(&arguments.command, &mut terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let own = error.downcast_ref::<moeprune::Error>();
            let message = own.map_or_else(|| error.to_string(), moeprune_cli::explain);
            terminal.error(&message, &*error);
            let stopped = own.is_some_and(moeprune::Error::is_stop);
            if stopped { ExitCode::from(moeprune_cli::stopped_code()) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: &Command, terminal: &mut Terminal) -> anyhow::Result<()> {
    match command {
        #[cfg(target_os = "linux")]
        Command::ArcticLayer(arguments) => arctic_layer::measure(arguments, terminal),
        #[cfg(target_os = "linux")]
        Command::Decode(arguments) => decode::run(arguments),
        #[cfg(target_os = "linux")]
        Command::MakeCheckpoint(arguments) => make_checkpoint::run(arguments),
        #[cfg(target_os = "linux")]
        Command::Peers(arguments) => peers::run(arguments, terminal),
        #[cfg(target_os = "linux")]
        Command::Products(arguments) => products::measure(arguments, terminal),
        #[cfg(target_os = "linux")]
        Command::RepairLayer(arguments) => repair_layer::measure(arguments, terminal),
        #[cfg(target_os = "linux")]
        Command::Runs(arguments) => runs::measure(arguments, terminal),
    }
}
