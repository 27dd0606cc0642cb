//! `cargo xtask measure-memory`: whether a run stays within the memory its shapes allow.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use moeprune::{
    Rates,
    checkpoint::Checkpoint,
    core::{ExpertRepair as _, LayerTensor, LinearId, MoeInput, TensorId},
    engine::{RepairCalibration, RepairEstimate},
    repair::Refit,
};
use moeprune_cli::{bytes, table};

use crate::binary;

const POLL: Duration = Duration::from_millis(5);
/// Experts that may be held at a time.
const EXPERTS: u64 = 8;
/// What does not grow with the model.
const FIXED: u64 = 300_000_000;
const F32: u64 = 4;

/// Run moeprune on a model and hold its peak memory against the bound from the model's shapes
///
/// Anonymous memory: the calibration activations (f32, as many copies as are needed at a time), one
/// layer without its experts in f32 (while pruning as stored too), eight experts as stored, and 300 MB. Resident memory, with
/// the pages of mapped files: twice that. Exits with 1 if a bound is broken.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask measure-memory MODEL --calibration MODEL.jsonl --samples 16 --seq-len 128
  cargo xtask measure-memory MODEL --calibration MODEL.jsonl -- --allocation uniform")]
pub(crate) struct MeasureMemoryArgs {
    /// Directory of the model; its results are written beside it and removed
    model: PathBuf,
    /// Calibration text
    #[arg(long, value_name = "FILE")]
    calibration: PathBuf,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,
    /// Tokens in a calibration block [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "T")]
    seq_len: Option<usize>,
    /// Threads that moeprune uses [default: as it chooses]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// What it does
    #[arg(long, value_enum, default_value_t = Verb::Prune)]
    verb: Verb,
    /// More options of the recipe, for `prune`, or for the plan that `apply` is given
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verb {
    /// Prune without a repair.
    Prune,
    /// Prune with the experts that stay refitted; the bound is what the repair announces.
    Repair,
    Observe,
    Apply,
}

pub(crate) fn run(args: &MeasureMemoryArgs) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let seq_len = args.seq_len.unwrap_or_else(|| checkpoint.spec().max_positions.min(2048));
    let bound = Bound::new(&checkpoint, args.samples, seq_len, args.verb);
    drop(checkpoint);
    let moeprune = binary::build()?;
    let scratch = binary::scratch_beside(&args.model)?;
    let place = |name: &str| scratch.path().join(name);
    let command = |verb: &str| {
        let mut command = Command::new(&moeprune);
        command.args(["--quiet", verb]).arg(&args.model).stdout(Stdio::null());
        if let Some(threads) = args.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    };
    let mut measured = args.command(&command, &place)?;
    measured.arg("--calibration").arg(&args.calibration).args([
        "--samples",
        &args.samples.to_string(),
        "--seq-len",
        &seq_len.to_string(),
    ]);
    let peak = watch(measured.spawn().context("cannot start moeprune")?)?;
    bound.print()?;
    let rows = [
        ("anonymous", peak.anonymous, bound.anonymous()),
        ("resident", peak.resident, 2 * bound.anonymous()),
    ];
    let verdict = |peak, bound| if peak <= bound { "kept" } else { "BROKEN" };
    let row = |&(what, peak, bound): &(&str, u64, u64)| {
        vec![what.to_owned(), bytes(peak), bytes(bound), verdict(peak, bound).to_owned()]
    };
    let rows_text: Vec<Vec<String>> = rows.iter().map(row).collect();
    line!("{}", table(&["", "peak", "bound", ""], &rows_text))?;
    if rows.iter().any(|&(_, peak, bound)| peak > bound) {
        bail!("{:?} of {} took more memory than allowed", args.verb, args.model.display());
    }
    Ok(())
}

impl MeasureMemoryArgs {
    /// The command that is measured, without its calibration text.
    fn command(
        &self,
        command: &dyn Fn(&str) -> Command,
        place: &dyn Fn(&str) -> PathBuf,
    ) -> Result<Command> {
        let args = self;
        match args.verb {
            Verb::Prune => {
                let mut prune = command("prune");
                prune.arg(place("out")).args(["--repair", "none"]).args(&args.options);
                Ok(prune)
            }
            Verb::Repair => {
                let mut prune = command("prune");
                prune.arg(place("out")).args(["--repair", "refit"]).args(&args.options);
                Ok(prune)
            }
            Verb::Observe => {
                ensure!(args.options.is_empty(), "`observe` takes no options of a recipe");
                let mut observe = command("observe");
                observe.arg("-o").arg(place("observation.safetensors"));
                Ok(observe)
            }
            Verb::Apply => {
                let plan = place("plan.json");
                let status = command("plan").arg("-o").arg(&plan).args(&args.options).status()?;
                ensure!(status.success(), "`moeprune plan` failed");
                let mut apply = command("apply");
                apply.arg(place("out")).arg("--plan").arg(&plan);
                Ok(apply)
            }
        }
    }
}

/// What anonymous memory may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    activations: u64,
    copies: u64,
    dense: u64,
    expert: u64,
    /// Of a repair, in all; 0 without.
    repair: u64,
}

impl Bound {
    fn new(checkpoint: &Checkpoint, samples: usize, seq_len: usize, verb: Verb) -> Self {
        let spec = checkpoint.spec();
        let after_attention = spec.layers.iter().filter_map(|l| l.moe());
        let after_attention = after_attention.map(|m| m.input).any(|i| i != MoeInput::LayerInput);
        // A layer's input and output; and, where experts read what attention made of the input,
        // that too, while the layer is both measured and run.
        let copies = if after_attention && verb != Verb::Observe { 3 } else { 2 };
        // By layer, those behind the decoder's included; of an expert, one for all of a layer.
        let (mut dense, mut experts) = (BTreeMap::new(), BTreeMap::new());
        for tensor in checkpoint.tensors() {
            match (tensor.part, &tensor.experts) {
                (_, Some(fused)) => {
                    let each = tensor.bytes / fused.experts().experts.max(1) as u64;
                    *experts.entry((fused.layer(), 0)).or_default() += each;
                }
                (Some(TensorId::Layer(l, LayerTensor::Linear(LinearId::Expert(e, _)))), _) => {
                    *experts.entry((l, e)).or_default() += tensor.bytes;
                }
                (Some(TensorId::Layer(l, _)), _) => {
                    // As it runs, and the zeroed weights beside it.
                    let zeroed = if verb == Verb::Observe { 0 } else { tensor.bytes };
                    *dense.entry(l).or_default() += F32 * tensor.elements() + zeroed;
                }
                _ => {}
            }
        }
        let tokens = |blocks: usize| (blocks * seq_len) as u64;
        let held_out = tokens(RepairCalibration::held_out_blocks_of(samples));
        let all = |layer| spec.moe_of(layer).map_or(0, |moe| moe.experts.saturating_sub(1));
        let repair = match verb {
            Verb::Repair => {
                let tokens = (tokens(samples), held_out);
                let passes = Refit::default().passes();
                RepairEstimate::of(checkpoint, all, tokens, passes, Rates::default()).memory_bytes
            }
            Verb::Prune | Verb::Observe | Verb::Apply => 0,
        };
        Self {
            repair,
            activations: (samples * seq_len * spec.hidden) as u64 * F32,
            copies,
            dense: dense.into_values().max().unwrap_or_default(),
            expert: experts.into_values().max().unwrap_or_default(),
        }
    }

    fn anonymous(self) -> u64 {
        let pruning = self.copies * self.activations + self.dense + EXPERTS * self.expert + FIXED;
        pruning.max(self.repair)
    }

    fn print(self) -> Result<()> {
        let Self { activations, copies, dense, expert, repair } = self;
        line!(
            "bound: {copies} × {} of activations + {} of a layer without experts as it runs + {EXPERTS} × {} \
             of an expert + {}",
            bytes(activations),
            bytes(dense),
            bytes(expert),
            bytes(FIXED)
        )?;
        if repair > 0 {
            line!("repair: {} in all, as it announces", bytes(repair))?;
        }
        Ok(())
    }
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Peak {
    anonymous: u64,
    resident: u64,
}

/// Looks at a process until it ends.
fn watch(mut child: Child) -> Result<Peak> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = Peak::default();
    let status = loop {
        if let Ok(text) = fs::read_to_string(&path) {
            let now = parse(&text);
            peak.anonymous = peak.anonymous.max(now.anonymous);
            peak.resident = peak.resident.max(now.resident);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(POLL);
    };
    ensure!(status.success(), "moeprune failed: {status}");
    ensure!(peak.anonymous > 0, "{path} told nothing about its memory");
    Ok(peak)
}

/// Anonymous memory at the moment, and the most that was resident so far.
fn parse(status: &str) -> Peak {
    let field = |name: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|v| v.trim().strip_suffix(" kB")).and_then(|v| v.parse().ok());
        1024 * kib.unwrap_or(0)
    };
    Peak { anonymous: field("RssAnon"), resident: field("VmHWM").max(field("VmRSS")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_files_are_read() {
        fn check(status: &str, anonymous: u64, resident: u64) {
            assert_eq!(parse(status), Peak { anonymous, resident }, "{status}");
        }
        check("VmHWM:\t  20 kB\nVmRSS:\t  12 kB\nRssAnon:\t   7 kB\n", 7 * 1024, 20 * 1024);
        check("VmRSS:\t  12 kB\nRssFile:\t   7 kB\n", 0, 12 * 1024);
        check("Name:\tmoeprune\nState:\tZ (zombie)\n", 0, 0);
        check("", 0, 0);
    }

    #[test]
    fn bounds_follow_from_the_files() {
        fn check(model: &str, verb: Verb, expected: Bound) {
            let model = crate::embedded::root().join("assets").join(model);
            let checkpoint = Checkpoint::open(&model).unwrap();
            assert_eq!(Bound::new(&checkpoint, 3, 10, verb), expected, "{verb:?}");
        }
        let width = 128;
        // Attention with half as many heads for keys and values, residual MLP, router, three norms.
        let dense = 3 * width * width + 3 * width * width + 32 * width + 3 * width;
        let nano = Bound {
            activations: 3 * 10 * width * 4,
            copies: 2,
            // In f32, and as stored.
            dense: (4 + 2) * dense,
            expert: 2 * 3 * width * 96,
            repair: 0,
        };
        check("nano", Verb::Prune, nano);
        check("nano", Verb::Apply, nano);
        check("nano", Verb::Observe, Bound { dense: 4 * dense, ..nano });
        let width = 64;
        let dense = 3 * width * width + 8 * width + 2 * width;
        let mixtral = Bound {
            activations: 3 * 10 * width * 4,
            copies: 3,
            dense: (4 + 2) * dense,
            expert: 2 * 3 * width * 96,
            repair: 0,
        };
        check("parity/mixtral", Verb::Prune, mixtral);
        let observed = Bound { copies: 2, dense: 4 * dense, ..mixtral };
        check("parity/mixtral", Verb::Observe, observed);
    }

    #[test]
    fn a_process_is_watched_to_its_end() {
        let sleep = Command::new("sleep").arg("0.05").spawn().unwrap();
        let peak = watch(sleep).unwrap();
        assert!(peak.resident >= peak.anonymous, "{peak:?}");
        assert!(watch(Command::new("false").spawn().unwrap()).is_err());
    }
}
