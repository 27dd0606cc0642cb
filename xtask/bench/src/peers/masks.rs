//! Our masks and PyTorch's, on the same matrix, in turns.
//!
//! Two workers, this program and Python, hold the matrix and time one run per request. Both are pinned to the same cores and both take their own CPU time, so that other work on
//! the machine shows in the wall time only.

use crate::arctic_layer::{PEER_SCRIPT, Seconds, Worker, has_torch, processor};
use anyhow::{Context, Result, ensure};
use clap::Args;
use moeprune::core::{
    Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, TensorBytes,
};
use moeprune::score::{PerRow, Rounding, Wanda, mask_matrix, prune_matrix};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What Python can run: the published operations first.
const PEERS: [&str; 3] = ["published", "topk", "kthvalue"];

/// Of masks of one matrix.
#[derive(Args)]
pub(crate) struct MaskArguments {
    /// Rows of the matrix
    #[arg(long, default_value_t = 4864)]
    rows: usize,
    /// Columns of the matrix
    #[arg(long, default_value_t = 7168)]
    cols: usize,
    /// Share of each row that goes
    #[arg(long, default_value_t = 0.65)]
    ratio: f64,
    /// Be the worker that runs our side, on the files in DIR
    #[arg(long, hide = true, value_name = "DIR")]
    worker: Option<PathBuf>,
}

/// How often each side runs, and with how many threads.
pub(crate) struct Turns {
    pub(crate) python: PathBuf,
    pub(crate) pairs: usize,
    pub(crate) threads: Vec<usize>,
}

pub(crate) fn run(arguments: &MaskArguments, turns: &Turns) -> Result<()> {
    if let Some(directory) = &arguments.worker {
        return work(arguments, turns, directory);
    }
    ensure!(turns.pairs > 0 && arguments.rows > 0 && arguments.cols > 0, "nothing to run");
    Sparsity::new(arguments.ratio)?;
    if !has_torch(&turns.python, "cpu") {
        line!(
            "skipped: {} with torch is not there; `pip install torch`, or name another Python \
             with --python",
            turns.python.display()
        )?;
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    write_matrix(arguments, directory.path())?;
    line!("{}", processor())?;
    line!(
        "{}x{} bf16, Wanda, {} % of each row; seconds of wall (CPU) time",
        arguments.rows,
        arguments.cols,
        arguments.ratio * 100.0
    )?;
    for &threads in &turns.threads {
        compare(arguments, turns, directory.path(), threads)?;
    }
    Ok(())
}

/// Weights like a trained model's, and mean squares of inputs some of which are far larger.
fn write_matrix(arguments: &MaskArguments, directory: &Path) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // Twelve uniform numbers make a good enough bell.
    let mut normal = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
    let shape = [arguments.rows, arguments.cols];
    let weights: Vec<f32> = (0..shape[0] * shape[1]).map(|_| normal() * 0.02).collect();
    let squares: Vec<f32> = (0..shape[1]).map(|_| (normal() * 1.5).exp()).collect();
    let weights = TensorBytes::encode(Dtype::BF16, shape, &weights)?;
    fs::write(directory.join("weights.bf16"), weights.bytes())?;
    let squares: Vec<u8> = squares.into_iter().flat_map(f32::to_le_bytes).collect();
    fs::write(directory.join("mean_squares.f32"), squares)?;
    fs::write(directory.join("peer.py"), PEER_SCRIPT)?;
    Ok(())
}

fn compare(
    arguments: &MaskArguments,
    turns: &Turns,
    directory: &Path,
    threads: usize,
) -> Result<()> {
    let matrix = [arguments.rows, arguments.cols].map(|n| n.to_string());
    let ratio = arguments.ratio.to_string();
    let mut ours = pinned(&std::env::current_exe()?, threads);
    ours.args(["peers", "--rows", &matrix[0], "--cols", &matrix[1], "--ratio", &ratio]);
    ours.args(["--threads", &threads.to_string(), "--worker"]).arg(directory);
    let mut ours = Worker::start(&mut ours)?;
    let mut theirs = pinned(&turns.python, threads);
    theirs.arg(directory.join("peer.py")).arg(directory).args(matrix).arg(ratio);
    let mut theirs = Worker::start(theirs.args([&threads.to_string(), "cpu"]))?;
    line!("\n{threads} thread{}, {}", if threads == 1 { "" } else { "s" }, theirs.hello)?;
    for peer in PEERS {
        // One of each to warm up, and ours again for the mask that Python compares.
        ours.run("ours")?;
        theirs.run(peer)?;
        let mut ratios = Vec::new();
        let mut best = [LONGEST; 2];
        for pair in 1..=turns.pairs {
            let (a, b) = (ours.run("ours")?, theirs.run(peer)?);
            ratios.push([b.wall / a.wall, b.cpu / a.cpu]);
            best = [least(best[0], a), least(best[1], b)];
            let [wall, cpu] = ratios[ratios.len() - 1];
            line!(
                "  {pair}: ours {:.4} ({:.4}), {peer} {:.4} ({:.4}): {wall:.1} times ({cpu:.1})",
                a.wall,
                a.cpu,
                b.wall,
                b.cpu
            )?;
        }
        let median = |i: usize| {
            let mut all: Vec<f64> = ratios.iter().map(|ratio| ratio[i]).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let same = theirs.ask("compare")?;
        line!(
            "  {peer}: median {:.1} times ({:.1}); at best ours {:.4} ({:.4}), {peer} {:.4} \
             ({:.4}); {same}",
            median(0),
            median(1),
            best[0].wall,
            best[0].cpu,
            best[1].wall,
            best[1].cpu
        )?;
        ensure!(peer != PEERS[0] || same == "equal masks", "our mask is not the published one");
    }
    Ok(())
}

/// The command on the first `threads` cores, where there is a `taskset` to see to it.
pub(super) fn pinned(program: &Path, threads: usize) -> Command {
    let cores = format!("0-{}", threads.saturating_sub(1));
    let mut probe = Command::new("taskset");
    let there = probe.args(["-c", &cores, "true"]).stderr(Stdio::null()).status();
    let mut command = if there.is_ok_and(|status| status.success()) {
        let mut command = Command::new("taskset");
        command.args(["-c", &cores]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // Waiting threads that spin would count as work.
    command.env("OMP_WAIT_POLICY", "passive").env("OMP_NUM_THREADS", threads.to_string());
    command
}

const LONGEST: Seconds = Seconds { wall: f64::INFINITY, cpu: f64::INFINITY };

fn least(a: Seconds, b: Seconds) -> Seconds {
    Seconds { wall: a.wall.min(b.wall), cpu: a.cpu.min(b.cpu) }
}

/// Our side: prunes a fresh copy of the matrix each time a line arrives, and times that.
fn work(arguments: &MaskArguments, turns: &Turns, directory: &Path) -> Result<()> {
    let threads = *turns.threads.first().context("no number of threads")?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let (rows, cols) = (arguments.rows, arguments.cols);
    let squares = fs::read(directory.join("mean_squares.f32"))?;
    let squares = squares.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let inputs =
        InputMoments { tokens: 1, calls: 1, sum_squares: squares.map(f64::from).collect() };
    let id = LinearId::Expert(0, MlpProjection::Gate);
    let linear = LinearView { layer: 0, id, rows, cols, inputs: Some(&inputs) };
    let weights = fs::read(directory.join("weights.bf16"))?;
    let weights = TensorBytes::new(Dtype::BF16, [rows, cols], weights)?;
    let ratio = Sparsity::new(arguments.ratio)?;
    let (wanda, rounding) = (Wanda::default(), Rounding::ReferenceFloor);
    let mask = mask_matrix(&weights, &linear, ratio, &wanda, &PerRow, rounding)?;
    fs::write(directory.join("mask.bits"), mask.bytes())?;
    line!("ready")?;
    for line in std::io::stdin().lines() {
        line?;
        let copy = weights.clone();
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let pruned = prune_matrix(copy, &linear, ratio, &wanda, &PerRow, rounding)?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        ensure!(pruned.zeroed == mask.count(), "the mask and the matrix differ");
        line!("{wall} {cpu}")?;
    }
    Ok(())
}

/// CPU time of this process, all threads together.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
