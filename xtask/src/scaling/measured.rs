//! Runs whose instructions are counted.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use moeprune::{
    checkpoint::Checkpoint,
    core::{AttentionSpec, Part},
    engine::active_parameters,
};

use super::fit::Cost;
use crate::delegate;

/// Runs of which the fastest counts.
const RUNS: usize = 5;

/// A model and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    layers: usize,
    experts: usize,
    blocks: usize,
    block: usize,
}

impl Case {
    pub(super) const ALL: &[Self] = &[
        Self { layers: 1, experts: 16, blocks: 2, block: 64 },
        Self { layers: 2, experts: 16, blocks: 2, block: 64 },
        Self { layers: 4, experts: 16, blocks: 4, block: 64 },
        Self { layers: 1, experts: 32, blocks: 8, block: 64 },
        Self { layers: 2, experts: 32, blocks: 16, block: 64 },
        Self { layers: 1, experts: 64, blocks: 4, block: 256 },
        Self { layers: 2, experts: 64, blocks: 2, block: 512 },
        Self { layers: 2, experts: 128, blocks: 2, block: 256 },
        Self { layers: 1, experts: 16, blocks: 4, block: 1024 },
        Self { layers: 3, experts: 32, blocks: 8, block: 128 },
    ];
    pub(super) const LARGEST: Self = Self { layers: 3, experts: 64, blocks: 8, block: 256 };
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, experts, blocks, block } = self;
        write!(formatter, "{layers} × {experts} experts, {blocks} × {block} tokens")
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) instructions: u64,
    /// Of the thread that began.
    pub(super) of_first_thread: u64,
    /// Bytes that the model's tensors have.
    bytes: u64,
}

impl Counted {
    pub(super) fn billions(&self) -> f64 {
        self.instructions as f64 / 1e9
    }

    pub(super) fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

/// The program, and where models are made.
pub(super) struct Machine<'a> {
    pub(super) moeprune: PathBuf,
    pub(super) scratch: &'a Path,
}

pub(super) fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Machine<'_> {
    /// What a case costs, and what observing it took with so many threads.
    pub(super) fn count(&self, case: Case, threads: usize) -> Result<(Cost, Counted)> {
        let model = self.model(case)?;
        let checkpoint = Checkpoint::open(&model)?;
        let out = self.scratch.join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind", "--separate-threads=yes"]);
        command.arg(format!("--callgrind-out-file={}", out.display())).arg(&self.moeprune);
        self.observe(command, case, threads)?;
        let mut by_thread = Vec::new();
        for thread in 1..10_000 {
            let path = self.scratch.join(format!("callgrind.out-{thread:02}"));
            let Ok(text) = fs::read_to_string(&path) else { break };
            fs::remove_file(&path)?;
            by_thread.push(instructions(&text).context("callgrind wrote no total")?);
        }
        // The file without a number holds no thread.
        let _ = fs::remove_file(out);
        let counted = Counted {
            instructions: by_thread.iter().sum(),
            of_first_thread: by_thread.first().copied().context("callgrind counted nothing")?,
            bytes: checkpoint.tensors().map(|tensor| tensor.bytes).sum(),
        };
        Ok((cost(&checkpoint, case), counted))
    }

    /// The fewest seconds that observing a case takes.
    pub(super) fn seconds(&self, case: Case, threads: usize) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let start = Instant::now();
            self.observe(Command::new(&self.moeprune), case, threads)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    }

    fn model(&self, case: Case) -> Result<PathBuf> {
        let model = self.scratch.join(format!("model-{}-{}", case.layers, case.experts));
        if model.exists() {
            return Ok(model);
        }
        let mut command = delegate::command(&delegate::MAKE_CHECKPOINT);
        command.args(["--model", "qwen3-30b-a3b", "--scale", "4", "--vocab", "4096"]);
        command.args([
            "--layers",
            &case.layers.to_string(),
            "--experts",
            &case.experts.to_string(),
        ]);
        command.arg("--calibration").arg(self.text(case)).arg(&model);
        let status = command.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "make-checkpoint failed");
        Ok(model)
    }

    /// Random tokens, which are written with the model.
    fn text(&self, case: Case) -> PathBuf {
        self.scratch.join(format!("text-{}-{}.jsonl", case.layers, case.experts))
    }

    fn observe(&self, mut command: Command, case: Case, threads: usize) -> Result<()> {
        let seen = self.scratch.join("seen.safetensors");
        command.args(["--quiet", "observe"]).arg(self.model(case)?).arg("-o").arg(&seen);
        command.arg("--calibration").arg(self.text(case));
        command.args(["--samples", &case.blocks.to_string(), "--seq-len", &case.block.to_string()]);
        let status =
            command.env("RAYON_NUM_THREADS", threads.to_string()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`moeprune observe` failed on {case}");
        Ok(fs::remove_file(seen)?)
    }
}

/// The total of a file that callgrind wrote.
fn instructions(text: &str) -> Option<u64> {
    let total = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    total?.trim().parse().ok()
}

/// What is paid for when a model is observed.
fn cost(checkpoint: &Checkpoint, case: Case) -> Cost {
    let spec = checkpoint.spec();
    let tokens = (case.blocks * case.block) as f64;
    let parts = (0..spec.layers.len()).flat_map(|layer| spec.layer_parts(layer));
    let weights = parts.filter_map(|part: Part| Some(part.linear_shape()?.parameters() as f64));
    let per_token = |layer: usize| {
        let chosen = spec.moe_of(layer).map_or(0, |moe| moe.top_k);
        ((1 + chosen) * spec.hidden) as f64
    };
    let numbers: f64 = (0..spec.layers.len()).map(per_token).sum();
    let widths = spec.layers.iter().map(|layer| match &layer.attention {
        AttentionSpec::Grouped(attention) => attention.query_width(),
        _ => 0,
    });
    Cost {
        weights: weights.sum(),
        multiply_adds: tokens * active_parameters(spec),
        numbers: tokens * numbers,
        // Half of the pairs of a block, twice: with keys and with values.
        scores: tokens * case.block as f64 * widths.sum::<usize>() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        let check = |text: &str, expected| assert_eq!(instructions(text), expected, "{text}");
        check("events: Ir\nfn=a\n1 2\ntotals: 123\n", Some(123));
        check("summary: 77\n", Some(77));
        check("events: Ir\n", None);
    }
}
