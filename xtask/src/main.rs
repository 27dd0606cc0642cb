//! Repository chores: `cargo xtask COMMAND`.
#![expect(clippy::print_stderr, reason = "commands print their errors")]

/// Prints a line to standard output, formatted as by `format!`; a `Result`, as of
/// [`moeprune_cli::print`].
macro_rules! line {
    ($($format:tt)*) => { moeprune_cli::print(&(format!($($format)*) + "\n")) };
}

#[cfg(target_os = "linux")]
mod bench_io;
#[cfg(target_os = "linux")]
mod binary;
#[cfg(target_os = "linux")]
mod build_cost;
#[cfg(target_os = "linux")]
mod check_cuda;
mod delegate;
mod embedded;
mod families;
#[cfg(target_os = "linux")]
mod gpu_bundle;
#[cfg(target_os = "linux")]
mod measure_memory;
#[cfg(target_os = "linux")]
mod project;
mod prune_arctic;
mod readme_results;
mod repair_results;
mod results;
mod same_results;
#[cfg(target_os = "linux")]
mod scaling;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Repository chores", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(target_os = "linux")]
    BenchIo(bench_io::BenchIoArgs),
    #[cfg(target_os = "linux")]
    BuildCost(build_cost::Arguments),
    /// Prune one decoder layer of Arctic's size and time each step
    #[command(disable_help_flag = true)]
    BenchArcticLayer(delegate::Arguments),
    /// Write a checkpoint of a published model's names and shapes with random weights
    #[command(disable_help_flag = true)]
    MakeCheckpoint(delegate::Arguments),
    #[cfg(target_os = "linux")]
    MeasureMemory(measure_memory::MeasureMemoryArgs),
    /// Time decoding of each encoding of quantised weights (torch's beside it, where Python has it)
    #[command(disable_help_flag = true)]
    BenchDecode(delegate::Arguments),
    /// Time experts as `observe` reads and runs them, beside their products alone
    #[command(disable_help_flag = true)]
    BenchProducts(delegate::Arguments),
    /// Time observe, prune and eval as whole programs, beside the products that they need alone
    #[command(disable_help_flag = true)]
    BenchRuns(delegate::Arguments),
    /// Time masks against PyTorch's, or whole prunings against llm-compressor and REAP (want Python with those)
    #[command(disable_help_flag = true)]
    BenchPeers(delegate::Arguments),
    #[cfg(target_os = "linux")]
    CheckCuda(check_cuda::Arguments),
    /// Check that the kernels compile, that the committed PTX is theirs, and that no register is spilled
    #[command(disable_help_flag = true)]
    CheckKernels(delegate::Arguments),
    #[cfg(target_os = "linux")]
    GpuBundle(gpu_bundle::Arguments),
    /// Run a command on an emulated CUDA driver with the workspace's kernels in it
    #[command(disable_help_flag = true)]
    EmulateCuda(delegate::Arguments),
    Families(families::Arguments),
    #[cfg(target_os = "linux")]
    Project(project::ProjectArgs),
    PruneArctic(Box<prune_arctic::PruneArcticArgs>),
    ReadmeResults(readme_results::ReadmeResultsArgs),
    /// Observe a layer of a published model's shape and repair it after experts went
    #[command(disable_help_flag = true)]
    BenchRepairLayer(delegate::Arguments),
    RepairResults(repair_results::RepairResultsArgs),
    Results(results::ResultsArgs),
    SameResults(same_results::Arguments),
    #[cfg(target_os = "linux")]
    Scaling(scaling::ScalingArgs),
    /// Train the embedded model from nothing and write a Hugging Face directory with its data
    #[command(disable_help_flag = true)]
    TrainNano(delegate::Arguments),
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(code) = build_cost::compile_if_wrapping() {
        return code;
    }
    let arguments = match moeprune_cli::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let own = error.downcast_ref::<moeprune::Error>();
            let message = own.map_or_else(|| format!("{error:#}"), moeprune_cli::explain);
            // A closed standard error must not hide the exit code.
            let _ = writeln!(std::io::stderr(), "Error: {message}");
            match own {
                Some(moeprune::Error::Recipe(_)) => ExitCode::from(2),
                Some(error) if error.is_stop() => ExitCode::from(moeprune_cli::stopped_code()),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        #[cfg(target_os = "linux")]
        Command::BenchIo(arguments) => bench_io::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::BuildCost(arguments) => build_cost::run(&arguments),
        Command::BenchArcticLayer(arguments) => delegate::run(delegate::ARCTIC_LAYER, &arguments),
        Command::MakeCheckpoint(arguments) => delegate::run(delegate::MAKE_CHECKPOINT, &arguments),
        #[cfg(target_os = "linux")]
        Command::MeasureMemory(arguments) => measure_memory::run(&arguments),
        Command::BenchRepairLayer(arguments) => delegate::run(delegate::REPAIR_LAYER, &arguments),
        Command::BenchDecode(arguments) => delegate::run(delegate::BENCH_DECODE, &arguments),
        Command::BenchPeers(arguments) => delegate::run(delegate::BENCH_PEERS, &arguments),
        Command::BenchRuns(arguments) => delegate::run(delegate::BENCH_RUNS, &arguments),
        Command::BenchProducts(arguments) => delegate::run(delegate::BENCH_PRODUCTS, &arguments),
        #[cfg(target_os = "linux")]
        Command::CheckCuda(arguments) => check_cuda::run(&arguments),
        Command::CheckKernels(arguments) => delegate::run(delegate::CHECK_KERNELS, &arguments),
        #[cfg(target_os = "linux")]
        Command::GpuBundle(arguments) => gpu_bundle::run(&arguments),
        Command::EmulateCuda(arguments) => delegate::run(delegate::EMULATE_CUDA, &arguments),
        Command::Families(arguments) => families::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Project(arguments) => project::run(&arguments),
        Command::PruneArctic(arguments) => prune_arctic::run(&arguments),
        Command::ReadmeResults(arguments) => readme_results::run(&arguments),
        Command::RepairResults(arguments) => repair_results::run(&arguments),
        Command::Results(arguments) => results::run(&arguments),
        Command::SameResults(arguments) => same_results::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::TrainNano(arguments) => delegate::run(delegate::TRAIN_NANO, &arguments),
    }
}
