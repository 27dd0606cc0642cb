//! `cargo xtask bench-runs`: `observe`, `prune` and `eval` as whole programs, beside the products that they need alone.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::{
    Estimates, FromRecipe as _, Pipeline, Recipe,
    checkpoint::Checkpoint,
    engine::{Rates, active_parameters},
};
use moeprune_cli::{Terminal, positive};
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, write_calibration_to, write_checkpoint,
};

use crate::{
    peers::moeprune,
    process::{Taken, watch},
    products::{Layer, median},
    synthesis::show,
};

/// Time observe, prune and eval as whole programs, beside the products that they need alone
///
/// Of four models' forms, with fewer layers and experts and random weights, from files in the page cache to files that are on
/// the disk. `prune` is the default recipe with an observation of its own and without a repair, which bench-repair-layer is for. Operations are those of the products, counted from
/// shapes; the ceiling is the rate, per processor second, of the products of the same experts alone, by the same code, with
/// as many tokens as an expert receives.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask bench-runs
  cargo xtask bench-runs --model mixtral-8x7b --samples 32 --rounds 5")]
pub(crate) struct RunsArgs {
    /// Which models' forms [default: all four]
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    model: Vec<String>,
    /// Blocks of tokens
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 16)]
    samples: usize,
    /// Tokens in a block
    #[arg(long, value_name = "T", value_parser = positive, default_value_t = 512)]
    seq_len: usize,
    /// How often each is run, in turns; the medians count
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 3)]
    rounds: usize,
    /// Folder on the disk that is used [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Our program [default: built as it is installed]
    #[arg(long, value_name = "PROGRAM")]
    moeprune: Option<PathBuf>,
}

/// A published model with fewer layers and experts, and widths divided by `scale`.
struct Form {
    published: &'static str,
    layers: usize,
    experts: usize,
    scale: usize,
}

const FORMS: [Form; 4] = [
    Form { published: "qwen3-30b-a3b", layers: 3, experts: 64, scale: 1 },
    Form { published: "glm-4.5-air", layers: 3, experts: 32, scale: 2 },
    Form { published: "mixtral-8x7b", layers: 3, experts: 8, scale: 4 },
    Form { published: "arctic", layers: 2, experts: 32, scale: 4 },
];
const VOCAB: usize = 4096;
const STEPS: [&str; 3] = ["observe", "prune", "eval"];

/// Measures and prints.
pub(crate) fn measure(args: &RunsArgs, terminal: &mut Terminal) -> Result<()> {
    let moeprune = match &args.moeprune {
        Some(program) => program.canonicalize()?,
        None => moeprune()?,
    };
    line!(
        "                         tokens/s  processor time      resident  GFLOP per processor second  of the ceiling"
    )?;
    for form in &FORMS {
        if !args.model.is_empty() && args.model.iter().all(|name| name != form.published) {
            continue;
        }
        let folder = match &args.scratch {
            Some(scratch) => tempfile::tempdir_in(scratch)?,
            None => tempfile::tempdir()?,
        };
        let lab = Lab { args, moeprune: &moeprune, folder: folder.path() };
        lab.make(form, terminal)?;
        lab.measure(form)?;
    }
    Ok(())
}

/// The program, a model, and a folder for both sides of it.
struct Lab<'a> {
    args: &'a RunsArgs,
    moeprune: &'a Path,
    folder: &'a Path,
}

impl Lab<'_> {
    fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn tokens(&self) -> usize {
        self.args.samples * self.args.seq_len
    }

    fn make(&self, form: &Form, terminal: &mut Terminal) -> Result<()> {
        let published: Published = form.published.parse()?;
        let reduction = Reduction {
            layers: Some(form.layers),
            experts: Some(form.experts),
            vocab: Some(VOCAB),
            scale: form.scale,
        };
        let shape = Shape::new(published, &reduction)?;
        let options = Options::default();
        write_checkpoint(&self.place("model"), &shape, &options, &mut |step| show(step, terminal))?;
        let mut file = BufWriter::new(File::create(self.place("tokens.jsonl"))?);
        write_calibration_to(
            &mut file,
            self.args.samples,
            self.args.seq_len,
            shape.spec().vocab,
            options.seed,
        )?;
        Ok(file.flush()?)
    }

    fn measure(&self, form: &Form) -> Result<()> {
        let layer = Layer::open(&self.place("model"))?;
        let spec = layer.spec();
        let operations = self.operations(&layer)?;
        let moe = spec.moe_of(layer.number()).context("a layer has experts")?;
        let of_each = (self.tokens() * moe.top_k / moe.experts).max(1);
        let (mut ceilings, mut taken) = (Vec::new(), [const { Vec::new() }; STEPS.len()]);
        for _ in 0..self.args.rounds {
            for (step, taken) in STEPS.iter().zip(&mut taken) {
                taken.push(self.run(step)?);
                ceilings.push(layer.packed_rate(of_each)?);
            }
        }
        let ceiling = median(ceilings.into_iter());
        line!("{} ({of_each} tokens per expert; ceiling {ceiling:.1})", form.published)?;
        for ((step, taken), operations) in STEPS.iter().zip(&taken).zip(operations) {
            let of = |what: fn(&Taken) -> f64| median(taken.iter().map(what));
            let (wall, processor) = (of(|t| t.wall), of(|t| t.processor));
            let rate = operations / processor / 1e9;
            line!(
                "  {step:20} {:>9.0}  {processor:>11.2} s  {:>9.2} GB  {rate:>26.1}  {:>12.0} %",
                self.tokens() as f64 / wall,
                of(|t| t.peak as f64) / 1e9,
                100.0 * rate / ceiling,
            )?;
        }
        Ok(())
    }

    /// Floating-point operations of the products of each step.
    fn operations(&self, layer: &Layer) -> Result<[f64; STEPS.len()]> {
        let mut recipe = Recipe::arctic();
        recipe.calibration.samples = self.args.samples;
        recipe.calibration.sequence_len = self.args.seq_len;
        let pipeline = Pipeline::from_recipe(&recipe)?;
        let checkpoint: &Checkpoint = layer.checkpoint();
        let estimates = Estimates::of(checkpoint, &recipe, &pipeline, Rates::default())?;
        let spec = layer.spec();
        let logits = (spec.hidden * spec.vocab) as f64;
        let of = |estimate: Option<moeprune::Estimate>| estimate.context("the model runs");
        Ok([
            of(estimates.observe)?.operations,
            of(estimates.prune)?.operations,
            2.0 * self.tokens() as f64 * (active_parameters(spec) + logits),
        ])
    }

    fn run(&self, step: &str) -> Result<Taken> {
        let out = self.place("out");
        if out.is_dir() {
            fs::remove_dir_all(&out)?;
        } else if out.exists() {
            fs::remove_file(&out)?;
        }
        let mut command = Command::new(self.moeprune);
        command.args(["--quiet", step]).arg(self.place("model"));
        let samples = self.args.samples.to_string();
        command.args(["--seq-len", &self.args.seq_len.to_string()]);
        match step {
            "observe" => command.arg("-o").arg(&out),
            "prune" => command.arg(&out).args(["--repair", "none"]),
            _ => command.args(["--task", "perplexity", "--limit", &samples, "--data"]),
        };
        if step != "eval" {
            command.args(["--samples", &samples, "--calibration"]);
        }
        watch(command.arg(self.place("tokens.jsonl")), &self.place("log"))
    }
}
