//! `cargo xtask train-nano`: makes the data, trains the embedded model and writes both.
//! It is a separate program: the other chores do not wait until the trainer is compiled.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nano::corpus::{Corpus, TEST};
use nano::data;
use nano::models::{Name, Settings};
use nano::train::{Origin, Plan, SEED, TOKENIZER_PROBLEMS, train};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Train the embedded model from nothing and write a Hugging Face directory with its data.
#[derive(Parser)]
#[command(name = "cargo xtask train-nano", bin_name = "cargo xtask train-nano")]
struct Arguments {
    /// Which model
    #[arg(long, value_enum, default_value_t = Name::Nano)]
    model: Name,
    /// Directory to write; a snapshot is put there every few minutes [default: target/MODEL]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of problems, weights and order
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Steps as a mixture of experts, if not the model's own
    #[arg(long)]
    steps: Option<usize>,
    /// Tokens per step
    #[arg(long, default_value_t = 4096)]
    batch: usize,
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
    let model = arguments.model;
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("target").join(model.as_str()));
    check_out(&out)?;
    data::write(&Corpus::new(arguments.seed), &out.join("data"))?;
    if arguments.data_only {
        return Ok(());
    }
    let Settings { config, origin, steps, rate } = model.settings();
    let mut plan = Plan {
        config,
        seed: arguments.seed,
        origin,
        steps: arguments.steps.unwrap_or(steps),
        warmup: 100,
        batch: arguments.batch,
        rate,
        tokenizer_problems: TOKENIZER_PROBLEMS,
        glance: 150,
        glance_every: arguments.glance_every,
        test: TEST,
        out,
    };
    if arguments.quick {
        if let Origin::Upcycled { steps, .. } = &mut plan.origin {
            *steps = 5;
        }
        plan.steps = 5;
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
