//! `cargo xtask train-nano`: makes the data, trains the embedded model and writes both.
//! It is a separate program: the other chores do not wait until the trainer is compiled.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nano::config::Config;
use nano::corpus::{Corpus, TEST};
use nano::data;
use nano::train::{Plan, SEED, TOKENIZER_PROBLEMS, train};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Train the embedded model from nothing and write a Hugging Face directory with its data.
#[derive(Parser)]
#[command(name = "cargo xtask train-nano", bin_name = "cargo xtask train-nano")]
struct Arguments {
    /// Directory to write; a snapshot is put there every few minutes
    #[arg(long, default_value = "target/nano", value_name = "DIR")]
    out: PathBuf,
    /// Seed of problems, weights and order
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Steps of the dense phase, before every MLP becomes 32 experts
    #[arg(long, default_value_t = 1000)]
    dense_steps: usize,
    /// Steps as a mixture of experts
    #[arg(long, default_value_t = 1200)]
    sparse_steps: usize,
    /// Tokens per step
    #[arg(long, default_value_t = 4096)]
    batch: usize,
    /// Highest learning rate of the dense phase
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
    /// Learning rate at the start of the mixture phase
    #[arg(long, default_value_t = 2e-3)]
    sparse_rate: f64,
    /// Steps between two measurements of accuracy
    #[arg(long, default_value_t = 500)]
    glance_every: usize,
    /// Train for some seconds only, to see that everything runs
    #[arg(long)]
    quick: bool,
    /// Write the data and train nothing
    #[arg(long)]
    data_only: bool,
}

fn main() -> Result<()> {
    let arguments = &Arguments::parse();
    if let Some(status) = restarted()? {
        std::process::exit(status);
    }
    check_out(&arguments.out)?;
    data::write(&Corpus::new(arguments.seed), &arguments.out.join("data"))?;
    if arguments.data_only {
        return Ok(());
    }
    let mut plan = Plan {
        config: Config::nano(),
        seed: arguments.seed,
        dense_steps: arguments.dense_steps,
        sparse_steps: arguments.sparse_steps,
        warmup: 100,
        batch: arguments.batch,
        rate: arguments.rate,
        sparse_rate: arguments.sparse_rate,
        noise: 0.3,
        tokenizer_problems: TOKENIZER_PROBLEMS,
        glance: 150,
        glance_every: arguments.glance_every,
        test: TEST,
        out: arguments.out.clone(),
    };
    if arguments.quick {
        plan.dense_steps = 5;
        plan.sparse_steps = 5;
        plan.glance = 2;
        plan.test = 4;
    }
    let outcome = train(&plan, say)?;
    say(format!(
        "{:.3} of the test problems right ({:.3} with a random half of the experts dropped) after {} tokens and {:.1} minutes",
        outcome.accuracy,
        outcome.halved,
        outcome.tokens,
        outcome.elapsed.as_secs_f64() / 60.0,
    ));
    Ok(())
}

/// Refuses a folder with something in it that this command did not put there.
fn check_out(out: &Path) -> Result<()> {
    let is_empty = fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
    ensure!(
        is_empty || out.join("data/calibration.jsonl").is_file(),
        "{} is not an earlier run's output; remove it or choose another --out",
        out.display()
    );
    Ok(())
}

/// Runs this same command with the settings it is fast under, unless it has them.
///
/// At this size candle's threads spend their time waiting for each other, and glibc gives the
/// memory of every large tensor back to the system. Both are set by the environment, which a
/// program can only change for another one.
fn restarted() -> Result<Option<i32>> {
    const THREADS: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return Ok(None);
    }
    let status = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(THREADS, "1")
        .env("MALLOC_MMAP_THRESHOLD_", "4294967296")
        .env("MALLOC_TRIM_THRESHOLD_", "17179869184")
        .env("MALLOC_TOP_PAD_", "67108864")
        .status()
        .context("starting again with one thread")?;
    Ok(Some(status.code().unwrap_or(1)))
}

fn say(line: String) {
    // A closed pipe is no reason to stop training.
    let _ = writeln!(std::io::stdout(), "{line}");
}
