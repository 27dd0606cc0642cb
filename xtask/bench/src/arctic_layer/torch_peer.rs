//! Beside us: PyTorch, in another process that holds the same matrix.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{OnceLock, atomic::AtomicU64},
    time::Instant,
};

use candle_core::{DeviceLocation, Tensor};
use moeprune_core::{
    InputMoments, LinearId, LinearView, MlpProjection, Sparsity, StoredWeight, TensorBytes,
    TensorId, TensorSource as _,
};
use moeprune_model::Expert;
use moeprune_score::{PerRow, Rounding, Wanda, mask_matrix};
use serde::Serialize;

use super::layer::Layer;
use moeprune::{
    Error, Execution, FromRecipe, Scored, WeightStage,
    timed::{MaskRequest, synchronize},
};

/// A Python program that prunes a matrix in several ways and times it; what it wants and answers is
/// at its top.
pub(crate) const PEER_SCRIPT: &str = include_str!("peer.py");

/// The operations, one by one, of the code that came with the Wanda paper.
const PUBLISHED: &str = "published";
const PAIRS: usize = 7;

/// Both sides on the same matrix, in turns.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TorchPeer {
    /// Version and device, as it says itself.
    pub(super) torch: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Seconds of ours and of torch's, pair by pair.
    pub(super) pairs: Vec<[f64; 2]>,
    /// Median of torch's over ours.
    pub(super) ratio: f64,
    /// What it says of the two masks.
    pub(super) masks: String,
}

impl TorchPeer {
    /// Prunes the gate of the layer's first expert; an error's text where torch is not there.
    pub(super) fn measure(
        layer: &Layer,
        ratio: Sparsity,
        execution: &Execution,
        python: &Path,
    ) -> Result<Result<Self, String>, Error> {
        let device = match execution.compute().device().location() {
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            _ => "cpu".into(),
        };
        if !has_torch(python, &device) {
            return Ok(Err(format!(
                "{} with torch for {device} is not there; `pip install torch`, or name another \
                 Python with --python",
                python.display()
            )));
        }
        let id = LinearId::Expert(0, MlpProjection::Gate);
        let dense = layer.checkpoint.tensor(TensorId::linear(0, id));
        let dense = dense.map_err(Error::stage("reading weights", 0))?;
        let (rows, cols) = (dense.shape()[0], dense.shape()[1]);
        let inputs = inputs(cols);
        let linear = LinearView { layer: 0, id, rows, cols, inputs: Some(&inputs) };
        let folder = tempfile::tempdir()
            .map_err(|e| Error::io(&std::env::temp_dir(), "create a folder in", e))?;
        write_matrix(folder.path(), &dense, &linear, ratio)?;
        let mut torch = start(python, folder.path(), &linear, ratio, &device)?;
        // What the published code does with a row's share.
        let weights =
            WeightStage::Scored(Scored { rounding: Rounding::ReferenceFloor, ..Scored::arctic() });
        let (hessian, without_zero, zero_before) = (None, AtomicU64::new(0), OnceLock::new());
        let masking = MaskRequest {
            linear,
            hessian,
            ratio,
            weights: &weights,
            execution,
            without_zero,
            zero_before,
        };
        let ours = || ours(layer, &dense, &masking, execution);
        // One of each to warm up.
        ours()?;
        torch.run(PUBLISHED)?;
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push([ours()?, torch.run(PUBLISHED)?.wall]);
        }
        let mut ratios: Vec<f64> = pairs.iter().map(|[ours, theirs]| theirs / ours).collect();
        ratios.sort_by(f64::total_cmp);
        let masks = torch.ask("compare")?;
        let (torch, ratio) = (torch.hello.clone(), ratios[PAIRS / 2]);
        Ok(Ok(Self { torch, rows, cols, pairs, ratio, masks }))
    }
}

/// Mean squares of inputs some of which are far larger than others, exact in f32.
fn inputs(cols: usize) -> InputMoments {
    let square = |col: usize| {
        let spread = (col * 2_654_435_761 % 1_000_003) as f32 / 1_000_003.0;
        f64::from((8.0 * spread - 4.0).exp())
    };
    InputMoments { tokens: 1, calls: 1, sum_squares: (0..cols).map(square).collect() }
}

fn write_matrix(
    folder: &Path,
    dense: &TensorBytes<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
) -> Result<(), Error> {
    let rounding = Rounding::ReferenceFloor;
    let mask = mask_matrix(dense, linear, ratio, &Wanda::default(), &PerRow, rounding)?;
    let squares = linear.inputs.map_or(&[][..], |inputs| &inputs.sum_squares);
    let squares: Vec<u8> = squares.iter().flat_map(|&s| (s as f32).to_le_bytes()).collect();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|e| Error::io(&path, "write", e))
    };
    write("weights.bf16", dense.bytes())?;
    write("mean_squares.f32", &squares)?;
    write("mask.bits", mask.bytes())?;
    write("peer.py", PEER_SCRIPT.as_bytes())
}

fn start(
    python: &Path,
    folder: &Path,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    device: &str,
) -> Result<Worker, Error> {
    let numbers = [linear.rows.to_string(), linear.cols.to_string(), ratio.value().to_string()];
    let mut command = Command::new(python);
    command.arg(folder.join("peer.py")).arg(folder).args(numbers);
    Worker::start(command.args([&rayon::current_num_threads().to_string(), device]))
}

/// Seconds of one mask, of a fresh copy of the matrix.
fn ours(
    layer: &Layer,
    dense: &TensorBytes<'_>,
    mask: &MaskRequest<'_>,
    execution: &Execution,
) -> Result<f64, Error> {
    let compute = execution.compute();
    if !compute.holds_stored() {
        let copy = dense.clone();
        let began = Instant::now();
        mask.of_stored(StoredWeight::alone(copy)?)?;
        return Ok(began.elapsed().as_secs_f64());
    }
    let spec = layer.checkpoint.spec();
    let expert = Expert::load(&layer.checkpoint, spec, 0, 0, compute)?;
    let Some(weight): Option<Tensor> = expert.weight(MlpProjection::Gate)? else {
        return Err(Error::Request("the expert is not on the device it was brought to".into()));
    };
    synchronize(compute.device())?;
    let began = Instant::now();
    mask.in_place(&weight)?;
    synchronize(compute.device())?;
    Ok(began.elapsed().as_secs_f64())
}

/// Whether a Python has torch, and torch the device (`cpu` or `cuda:N`).
#[must_use]
pub(crate) fn has_torch(python: &Path, device: &str) -> bool {
    let ask = if device.starts_with("cuda") {
        "import sys, torch; sys.exit(not torch.cuda.is_available())"
    } else {
        "import torch"
    };
    let asked = Command::new(python).args(["-c", ask]).output();
    asked.is_ok_and(|output| output.status.success())
}

/// The processor's name and how many of it there are.
#[must_use]
pub(crate) fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} logical cores", name.map_or("unknown processor", |(_, name)| name))
}

/// A process that does what each line of its input says, and answers with a line.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said at first.
    pub(crate) hello: String,
}

/// Seconds of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds {
    /// By the clock on the wall.
    pub(crate) wall: f64,
    /// Of all threads.
    pub(crate) cpu: f64,
}

impl Worker {
    /// Starts it and waits for its first line.
    ///
    /// # Errors
    /// If it cannot be started or says nothing.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let failed = |e| Error::io(Path::new(command.get_program()), "run", e);
        let mut process = spawned.map_err(failed)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::Request("a worker has no pipes".into()));
        };
        let output = BufReader::new(output);
        let mut worker = Self { process, input, output, hello: String::new() };
        worker.hello = worker.answer()?;
        Ok(worker)
    }

    /// Sends a line and waits for the answer.
    ///
    /// # Errors
    /// If it has stopped.
    pub(crate) fn ask(&mut self, what: &str) -> Result<String, Error> {
        writeln!(self.input, "{what}").map_err(stopped)?;
        self.answer()
    }

    /// Sends a line that is answered by the seconds it took.
    ///
    /// # Errors
    /// If it has stopped, or its answer is not two numbers.
    pub(crate) fn run(&mut self, what: &str) -> Result<Seconds, Error> {
        let answer = self.ask(what)?;
        let numbers = answer.split_once(' ').map(|(wall, cpu)| (wall.parse(), cpu.parse()));
        match numbers {
            Some((Ok(wall), Ok(cpu))) => Ok(Seconds { wall, cpu }),
            _ => Err(Error::Request(format!("a worker should say two times and said {answer:?}"))),
        }
    }

    fn answer(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.output.read_line(&mut line).map_err(stopped)? == 0 {
            return Err(stopped(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Workers stop by themselves at the end of their input; this is for one that is stuck.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn stopped(error: io::Error) -> Error {
    Error::Request(format!("a worker stopped ({error}); what it said is above"))
}
