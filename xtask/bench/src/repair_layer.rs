//! `cargo xtask bench-repair-layer`: what the repair of a layer costs beside observing it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::{
    Calibration, Job, Rates, Recipe, Registry,
    checkpoint::Checkpoint,
    engine::{KeptExperts, PlanInputs, RepairCost, active_parameters},
    recipe::StageChoice,
};
use moeprune_cli::{DeviceArgs, Terminal, positive, seconds};
use moeprune_core::{
    AttentionSpec, FeedForward, LayerSpec, ModelSpec, Observation, Plan, RepairPasses, Sparsity,
};
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, write_calibration, write_checkpoint,
};

use crate::{linalg_rates, make_checkpoint::models, synthesis::show};

/// Observe a layer of a published model's shape and repair it after experts went
///
/// The layer has random weights and is fed random tokens. What the same costs for the whole model is computed
/// from the operations of both. The rates of Gram matrices in f32 and of the factorisation in f64, at the width
/// of the layer's experts and at 2048, stand beside those of plain products of the same type.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask bench-repair-layer
  cargo xtask bench-repair-layer --model mixtral-8x7b --experts 8 --scale 4 --samples 4")]
pub(crate) struct RepairLayerArgs {
    /// Which model's form
    #[arg(long, value_name = "MODEL", value_parser = models(), default_value = "qwen3-30b-a3b")]
    model: String,
    /// Experts of the layer
    #[arg(long, value_name = "E", default_value_t = 32, value_parser = positive)]
    experts: usize,
    /// Divide every width by this
    #[arg(long, value_name = "F", default_value_t = 1, value_parser = positive)]
    scale: usize,
    /// Share of the experts that goes
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    dropped: f64,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    samples: usize,
    /// Sweeps over the experts, however little one gains
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    sweeps: usize,
    /// Tokens in a block
    #[arg(long, value_name = "T", default_value_t = 512, value_parser = positive)]
    seq_len: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for the layer [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Rows of the embedding: no part of what is measured.
const VOCABULARY: usize = 512;
/// Columns at which linear algebra is measured besides.
const LARGE: usize = 2048;

impl RepairLayerArgs {
    fn published(&self) -> Result<Published> {
        let published = Published::ALL.iter().copied().find(|model| model.name() == self.model);
        published.context("clap accepts no other model")
    }

    fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::built_in("reap").context("the recipe is built in")?;
        let dropped = Sparsity::new(self.dropped)?;
        (recipe.sparsity, recipe.experts.sparsity) = (dropped, dropped);
        // Random weights gain too little to go on after the second; trained ones needed up to four.
        let sweeps = i64::try_from(self.sweeps)?;
        recipe.repair = StageChoice::new("refit").with("sweeps", sweeps).with("least_gain", 0.0);
        recipe.calibration.samples = self.samples;
        recipe.calibration.sequence_len = self.seq_len;
        Ok(recipe)
    }

    /// Writes the layer and its text, unless they are there.
    fn make(
        &self,
        published: Published,
        (model, text): (&Path, &Path),
        terminal: &mut Terminal,
    ) -> Result<()> {
        if model.exists() {
            return Ok(());
        }
        let experts = Some(self.experts);
        let reduction =
            Reduction { layers: Some(1), experts, vocab: Some(VOCABULARY), scale: self.scale };
        let shape = Shape::new(published, &reduction)?;
        write_checkpoint(model, &shape, &Options::default(), &mut |step| show(step, terminal))?;
        write_calibration(text, self.samples, self.seq_len, VOCABULARY, 0)?;
        Ok(())
    }
}

/// Measures and prints.
pub(crate) fn measure(args: &RepairLayerArgs, terminal: &mut Terminal) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let (model, text) = (dir.join("model"), dir.join("calibration.jsonl"));
    fs::create_dir_all(&dir)?;
    let published = args.published()?;
    args.make(published, (&model, &text), terminal)?;
    let checkpoint = Checkpoint::open(&model)?;
    let recipe = args.recipe()?;
    let pipeline = Registry::built_in().pipeline(&recipe)?;
    let execution = args.device.open()?;
    let model = &checkpoint;
    let mut job = Job { model, pipeline: &pipeline, execution: &execution, progress: terminal };

    let calibration = Calibration::read(&text, model, &recipe)?;
    let started = Instant::now();
    let observation: Observation = job.observe(&calibration)?;
    let observing = started.elapsed().as_secs_f64();
    let request = recipe.request(&pipeline)?;
    let inputs = PlanInputs { observation: Some(&observation), calibration: None };
    let plan: Plan = job.plan(&request, inputs)?;
    let kept = KeptExperts::new(model, &plan);
    let started = Instant::now();
    let (kept, repair) = kept.repaired(&mut job, &calibration)?;
    let repairing = started.elapsed().as_secs_f64();
    let repair = repair.context("experts went")?;
    let layer = repair.layers.first().context("the layer lost experts")?;

    let tokens = calibration.tag.tokens();
    let sweeps = layer.repair.errors.len() - 1;
    let passes = pipeline.repair.as_ref().context("the recipe repairs")?.passes();
    let size = Size { tokens, sequence_len: args.seq_len, sweeps };
    let (observed, repaired) = operations((model.spec(), kept.spec()), size, passes);
    line!(
        "{} experts of {}, {} stay, {tokens} tokens, on {}",
        args.experts,
        args.model,
        layer.repair.experts.len(),
        execution.name()
    )?;
    print_step("observing", observing, observed, "")?;
    print_step("repairing", repairing, repaired, &format!("  {sweeps} sweeps"))?;
    line!(
        "repair / observation: {:.2} in time, {:.2} in operations",
        repairing / observing,
        repaired / observed
    )?;
    print_whole(published, args.dropped, passes)?;
    let inner = model.spec().moe_of(0).context("the layer has experts")?.expert.inner;
    let mut sizes = vec![inner, LARGE];
    sizes.dedup();
    linalg_rates::print(&sizes)
}

/// Prints what a step took and its operations, and what else is to be said of it.
fn print_step(name: &str, took: f64, operations: f64, besides: &str) -> Result<()> {
    line!(
        "{name}  {:>8}  {:>7.2} TFLOP  {:>6.0} GFLOP/s{besides}",
        seconds(took),
        operations / 1e12,
        operations / took / 1e9
    )?;
    Ok(())
}

/// What goes through a model, and how often.
#[derive(Debug, Clone, Copy)]
struct Size {
    tokens: u64,
    sequence_len: usize,
    sweeps: usize,
}

/// What observing the decoder and repairing it compute.
fn operations(
    (spec, kept): (&ModelSpec, &ModelSpec),
    size: Size,
    passes: RepairPasses,
) -> (f64, f64) {
    let Size { tokens, sequence_len, sweeps } = size;
    let observed = tokens as f64 * (2.0 * active_parameters(spec) + scores(spec, sequence_len));
    let mut repaired = observed;
    for layer in 0..spec.layers.len() {
        let (Some(moe), Some(left)) = (spec.moe_of(layer), kept.moe_of(layer)) else { continue };
        if left.experts == moe.experts {
            continue;
        }
        let cost = RepairCost::of_layer(spec, moe, left.experts, tokens, passes);
        let matrices = moe.expert.projections().len() as f64;
        let parameters = matrices * moe.expert.inner as f64 * moe.expert_width(spec.hidden) as f64;
        let fewer = passes.sweeps as f64 - sweeps as f64;
        // The experts are in what observing computes already.
        repaired += cost.operations(cost.holding(Rates::default()))
            - fewer * cost.sweep
            - 2.0 * parameters * tokens as f64 * moe.top_k as f64;
    }
    (observed, repaired)
}

/// Operations per token of the products of queries with keys and of weights with values, in attention of the
/// usual kind: half of a block's tokens are seen on average.
fn scores(spec: &ModelSpec, sequence_len: usize) -> f64 {
    let of_layer = |layer: &LayerSpec| match &layer.attention {
        AttentionSpec::Grouped(of) => 2.0 * (of.heads * of.head_dim * sequence_len) as f64,
        _ => 0.0,
    };
    spec.layers.iter().map(of_layer).sum()
}

/// The same for all layers of the published model on 128 blocks of 2,048 tokens.
fn print_whole(published: Published, dropped: f64, passes: RepairPasses) -> Result<()> {
    let size = Size { tokens: 128 * 2048, sequence_len: 2048, sweeps: passes.sweeps };
    let shape = Shape::new(published, &Reduction::default())?;
    let mut kept = shape.spec().clone();
    for layer in &mut kept.layers {
        if let FeedForward::Moe(moe) = &mut layer.feed_forward {
            moe.experts -= (moe.experts as f64 * dropped).round() as usize;
        }
    }
    let (observed, repaired) = operations((shape.spec(), &kept), size, passes);
    line!(
        "the whole model on {} tokens: observing {:.2} PFLOP, repairing {:.2} PFLOP, {:.2} times as much \
         ({} sweeps)",
        size.tokens,
        observed / 1e15,
        repaired / 1e15,
        repaired / observed,
        size.sweeps
    )?;
    Ok(())
}
