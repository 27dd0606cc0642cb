//! `cargo xtask bench-repair-layer`: what the repair of a layer costs beside observing it.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::{
    Calibration, Job, Rates, Recipe, Registry,
    checkpoint::Checkpoint,
    engine::{KeptExperts, PlanInputs, RepairCost, active_parameters},
};
use moeprune_cli::{DeviceArgs, Terminal, positive, seconds};
use moeprune_core::{FeedForward, ModelSpec, Observation, Plan, Sparsity};
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, write_calibration, write_checkpoint,
};

use crate::{make_checkpoint::models, synthesis::show};

/// Observe a layer of a published model's shape and repair it after experts went
///
/// The layer has random weights and is fed random tokens. What the same costs for the whole model is computed
/// from the operations of both.
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

/// Measures and prints.
pub(crate) fn measure(args: &RepairLayerArgs, terminal: &mut Terminal) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let (model, text) = (dir.join("model"), dir.join("calibration.jsonl"));
    fs::create_dir_all(&dir)?;
    let published = Published::ALL.iter().copied().find(|model| model.name() == args.model);
    let published = published.context("clap accepts no other model")?;
    if !model.exists() {
        let whole =
            Reduction { layers: Some(1), experts: Some(args.experts), ..Reduction::default() };
        let reduction = Reduction { vocab: Some(VOCABULARY), scale: args.scale, ..whole };
        let shape = Shape::new(published, &reduction)?;
        write_checkpoint(&model, &shape, &Options::default(), &mut |step| show(step, terminal))?;
        write_calibration(&text, args.samples, args.seq_len, VOCABULARY, 0)?;
    }
    let checkpoint = Checkpoint::open(&model)?;
    let mut recipe = Recipe::built_in("reap").context("the recipe is built in")?;
    let dropped = Sparsity::new(args.dropped)?;
    (recipe.sparsity, recipe.experts.sparsity) = (dropped, dropped);
    recipe.repair = "refit".into();
    recipe.calibration.samples = args.samples;
    recipe.calibration.sequence_len = args.seq_len;
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
    let (observed, repaired) = operations(model.spec(), kept.spec(), tokens);
    line!(
        "{} experts of {}, {} stay, {tokens} tokens, on {}",
        args.experts,
        args.model,
        layer.repair.experts.len(),
        execution.name()
    )?;
    line!(
        "observing  {:>8}  {:>7.2} TFLOP  {:>6.0} GFLOP/s",
        seconds(observing),
        observed / 1e12,
        observed / observing / 1e9
    )?;
    line!(
        "repairing  {:>8}  {:>7.2} TFLOP  {:>6.0} GFLOP/s  {} sweeps",
        seconds(repairing),
        repaired / 1e12,
        repaired / repairing / 1e9,
        layer.repair.errors.len() - 1
    )?;
    line!(
        "repair / observation: {:.2} in time, {:.2} in operations",
        repairing / observing,
        repaired / observed
    )?;
    print_whole(published, args.dropped)
}

/// What observing the decoder and repairing it compute.
fn operations(spec: &ModelSpec, kept: &ModelSpec, tokens: u64) -> (f64, f64) {
    let observed = 2.0 * tokens as f64 * active_parameters(spec);
    let mut repaired = observed;
    for layer in 0..spec.layers.len() {
        let (Some(moe), Some(left)) = (spec.moe_of(layer), kept.moe_of(layer)) else { continue };
        if left.experts == moe.experts {
            continue;
        }
        let cost = RepairCost::of_layer(spec, moe, left.experts, tokens);
        let matrices = moe.expert.projections().len() as f64;
        let parameters = matrices * moe.expert.inner as f64 * moe.expert_width(spec.hidden) as f64;
        // The experts are in what observing computes already.
        repaired += cost.operations(cost.holding(Rates::default()))
            - 2.0 * parameters * tokens as f64 * moe.top_k as f64;
    }
    (observed, repaired)
}

/// The same for all layers of the published model on 128 blocks of 2,048 tokens.
fn print_whole(published: Published, dropped: f64) -> Result<()> {
    const TOKENS: u64 = 128 * 2048;
    let shape = Shape::new(published, &Reduction::default())?;
    let mut kept = shape.spec().clone();
    for layer in &mut kept.layers {
        if let FeedForward::Moe(moe) = &mut layer.feed_forward {
            moe.experts -= (moe.experts as f64 * dropped).round() as usize;
        }
    }
    let (observed, repaired) = operations(shape.spec(), &kept, TOKENS);
    line!(
        "the whole model on {TOKENS} tokens: observing {:.2} PFLOP, repairing {:.2} PFLOP, {:.2} times as \
         much (4 sweeps; scores of attention are in neither)",
        observed / 1e15,
        repaired / 1e15,
        repaired / observed
    )?;
    Ok(())
}
