//! All that was measured, as it is written to JSON.

use serde::Serialize;

use super::{
    ArcticLayerArgs,
    ceilings::Ceilings,
    layer::Layer,
    pipeline_bench::{self, How, PRUNING, PipelineRun},
    projection::Projection,
    torch_peer::{TorchPeer, processor},
};
use moeprune::{
    Execution, Job, Resume, Run,
    recipe::StageChoice,
    timed::{PartTimes, Spent, time_parts},
};
use moeprune_cli::Terminal;

/// What is aimed at on an H100.
const MASK_TARGET: f64 = 0.5;
const FORWARD_TARGET: f64 = 0.6;
const PASS_TARGET: f64 = 5.0;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    pub(super) tool: &'static str,
    /// The command line.
    pub(super) command: Vec<String>,
    pub(super) machine: Machine,
    pub(super) layer: LayerFacts,
    pub(super) ceilings: Ceilings,
    pub(super) parts: Vec<Part>,
    /// The default pipeline, from disk to disk.
    pub(super) whole: PipelineRun,
    pub(super) from_memory: Measured<PipelineRun>,
    pub(super) targets: Vec<Target>,
    pub(super) peer: Measured<TorchPeer>,
    pub(super) projection: Projection,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// Kind and type, for example `cuda:0 bf16`.
    pub(super) device: String,
    /// The device's own name.
    pub(super) device_name: String,
    pub(super) processor: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct LayerFacts {
    pub(super) experts: usize,
    pub(super) hidden: usize,
    pub(super) expert_inner: usize,
    /// Bytes as stored, without embedding and head.
    pub(super) bytes: u64,
    /// Whether it is a layer of the published model, not a reduced one.
    pub(super) is_true_size: bool,
    /// Calibration tokens.
    pub(super) tokens: u64,
    /// Blocks that went through the trunk together.
    pub(super) micro_batch: usize,
    pub(super) allocation: StageChoice,
}

/// A step of pruning the layer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    pub(super) name: &'static str,
    /// `B` or `FLOP`.
    pub(super) unit: &'static str,
    pub(super) alone: Timed,
    /// What of it there is in the step that reads, runs, zeroes and writes the layer, over the
    /// seconds of that step: a rate that it reached at least.
    pub(super) overlapped: Option<Timed>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Timed {
    pub(super) work: u64,
    pub(super) seconds: f64,
    /// Work per second.
    pub(super) rate: f64,
}

impl Timed {
    fn new(work: u64, seconds: f64) -> Self {
        Self { work, seconds, rate: Spent { work, seconds }.rate() }
    }
}

/// What was measured, or why not.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measured<T> {
    Measured(T),
    Skipped(String),
}

impl<T> Measured<T> {
    fn new(measured: Result<T, String>) -> Self {
        match measured {
            Ok(measured) => Self::Measured(measured),
            Err(why) => Self::Skipped(why),
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Measured(measured) => Some(measured),
            Self::Skipped(_) => None,
        }
    }
}

/// What is aimed at for a layer of true size on an H100.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) got: f64,
    pub(super) target: f64,
    /// Whether less is better.
    pub(super) at_most: bool,
    pub(super) met: bool,
}

impl Outcome {
    pub(super) fn measure(
        args: &ArcticLayerArgs,
        layer: &Layer,
        how: How<'_>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Self> {
        let How { recipe, pipeline, execution } = how;
        let checkpoint = &layer.checkpoint;
        let mut job = Job::new(checkpoint, pipeline, execution, &mut *terminal);
        let plan = moeprune::plan(&mut job, recipe, None)?;
        let ratio = plan.unstructured.as_ref().map_or(0.0, |asked| asked.ratio);
        let ratio = moeprune_core::Sparsity::new(ratio)?;
        let out = layer.dir().join(format!("parts-{}", std::process::id()));
        super::disk::drop_cached(&layer.files())?;
        let calibration = &layer.calibration;
        let run = Run::claim(&out, checkpoint, Resume::No)?;
        let times = time_parts(&mut job, run, calibration, ratio)?;
        let ceilings = Ceilings::measure(layer, &times, execution)?;
        let whole = pipeline_bench::from_disk(layer, how, terminal)?;
        let from_memory = pipeline_bench::from_memory(layer, &args.memory_dir, how, terminal)?;
        let from_memory = Measured::new(from_memory);
        let peer = Measured::new(TorchPeer::measure(layer, ratio, execution, &args.python)?);
        Ok(Self {
            tool: moeprune::engine::TOOL,
            command: std::env::args().collect(),
            machine: Machine::of(execution),
            layer: LayerFacts::of(args, layer, &times),
            parts: parts(layer, &times, &whole, execution),
            targets: targets(&times, &ceilings, from_memory.get()),
            projection: Projection::new(recipe, &times, &ceilings)?,
            ceilings,
            whole,
            from_memory,
            peer,
        })
    }
}

impl Machine {
    fn of(execution: &Execution) -> Self {
        let processor = processor();
        #[cfg(feature = "cuda")]
        let device_name = super::cuda::name(execution).unwrap_or_else(|| processor.clone());
        #[cfg(not(feature = "cuda"))]
        let device_name = processor.clone();
        Self { device: execution.name(), device_name, processor }
    }
}

impl LayerFacts {
    fn of(args: &ArcticLayerArgs, layer: &Layer, times: &PartTimes) -> Self {
        let spec = layer.checkpoint.spec();
        let moe = spec.layers.first().and_then(|layer| layer.moe());
        Self {
            experts: args.experts,
            hidden: spec.hidden,
            expert_inner: moe.map_or(0, |moe| moe.expert.inner),
            bytes: layer.bytes(),
            is_true_size: args.experts == 128 && args.scale == 1,
            tokens: layer.calibration.blocks.tokens(),
            micro_batch: times.micro_batch,
            allocation: args.allocation.clone(),
        }
    }
}

fn parts(
    layer: &Layer,
    times: &PartTimes,
    whole: &PipelineRun,
    execution: &Execution,
) -> Vec<Part> {
    let is_device = execution.compute().holds_stored();
    let seconds = whole.seconds_of(PRUNING);
    let outside = layer.checkpoint.weight_bytes() - layer.bytes();
    let kept = whole.bytes_after.saturating_sub(outside);
    let part = |name, unit, alone: Spent, within: u64| Part {
        name,
        unit,
        alone: Timed::new(alone.work, alone.seconds),
        overlapped: seconds.map(|seconds| Timed::new(within, seconds)),
    };
    let (load, loads) = if is_device { ("host to device", 1) } else { ("widen to f32", 2) };
    // Pruning walks the layer twice, as it was and zeroed.
    let mut parts = vec![
        part("read", "B", times.read, kept),
        part(load, "B", times.load, loads * kept),
        part("forward: trunk", "FLOP", times.trunk, 2 * times.trunk.work),
        part("forward: experts", "FLOP", times.experts, 2 * times.experts.work),
        part("capture", "B", times.capture, times.capture.work),
        part("masks", "B", times.mask, kept),
        part("write", "B", times.write, kept),
    ];
    if is_device {
        parts.insert(6, part("device to host", "B", times.fetch, kept));
    }
    parts
}

fn targets(
    times: &PartTimes,
    ceilings: &Ceilings,
    from_memory: Option<&PipelineRun>,
) -> Vec<Target> {
    let at_least = |name: &str, got: f64, target: f64| Target {
        name: name.into(),
        got,
        target,
        at_most: false,
        met: got >= target,
    };
    let forward = times.trunk.seconds + times.experts.seconds;
    let mut targets = vec![
        at_least(
            "masks, a read and a write of each weight, to the copies' rate",
            2.0 * times.mask.rate() / ceilings.copy.rate,
            MASK_TARGET,
        ),
        at_least(
            "forward, to the products' rate",
            ceilings.pass_seconds() / forward.max(f64::MIN_POSITIVE),
            FORWARD_TARGET,
        ),
    ];
    for step in ["observing", "measuring outliers", PRUNING] {
        if let Some(got) = from_memory.and_then(|whole| whole.seconds_of(step)) {
            targets.push(Target {
                name: format!("{step}, from host memory, seconds"),
                got,
                target: PASS_TARGET,
                at_most: true,
                met: got <= PASS_TARGET,
            });
        }
    }
    targets
}
