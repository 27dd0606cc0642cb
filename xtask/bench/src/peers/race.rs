//! Whole prunings beside other programs: the same checkpoint, the same tokens, the same method, in turns.
//!
//! Both sides read the checkpoint from disk and write the pruned one. The peer's times are of its whole process, and apart of what
//! it does after its imports.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use moeprune::Progress as _;
use moeprune_cli::Terminal;
use moeprune_files::{OutputKind, RunFiles};
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, write_calibration_to, write_checkpoint,
};
use serde_json::Value;

use super::{
    agreement::Agreement,
    environment::{self, Found},
    masks::pinned,
    outcome::{Outcome, Pair, Row},
    sides::{Method, Peer},
};
use crate::{arctic_layer::processor, make_checkpoint::models, process::watch, synthesis::show};

/// Of whole prunings.
#[derive(Args)]
pub(super) struct RaceArguments {
    /// How the model is pruned; reap alone of the peer reap
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_enum, default_value = "reap")]
    methods: Vec<Method>,
    /// Share of the experts that goes by reap
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    expert_share: f64,
    /// Share of the weights that goes by wanda and sparsegpt
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    weight_share: f64,
    /// Which model's form the checkpoint has
    #[arg(long, value_name = "MODEL", value_parser = models(), default_value = "qwen3-30b-a3b")]
    model: String,
    /// Its decoder layers
    #[arg(long, value_name = "K", default_value_t = 6)]
    layers: usize,
    /// Its experts in each layer
    #[arg(long, value_name = "E", default_value_t = 64)]
    experts: usize,
    /// What its widths are divided by
    #[arg(long, value_name = "F", default_value_t = 2)]
    scale: usize,
    /// Rows of its embedding
    #[arg(long, value_name = "V", default_value_t = 8192)]
    vocab: usize,
    /// Calibration blocks
    #[arg(long, value_name = "N", default_value_t = 16)]
    samples: usize,
    /// Tokens in a block
    #[arg(long, value_name = "T", default_value_t = 256)]
    seq_len: usize,
    /// What the peer computes in: float32 as here, or bfloat16
    #[arg(long, value_name = "TYPE", default_value = "float32")]
    peer_type: String,
    /// Run all experts of llm-compressor on all tokens, which is its default, and takes longer
    #[arg(long)]
    peer_all_experts: bool,
    /// Our program [default: built as it is installed]
    #[arg(long, value_name = "PROGRAM")]
    moeprune: Option<PathBuf>,
    /// Make the environment of llm-compressor if there is none
    #[arg(long)]
    install: bool,
    /// A checkout of what the authors of REAP published
    #[arg(long, value_name = "DIR")]
    reap: Option<PathBuf>,
    /// Python that has what that needs
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    reap_python: PathBuf,
    /// Write everything measured here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Which Python runs llm-compressor, how often each side runs, and on how many cores.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    pub(super) python: Option<&'a Path>,
    pub(super) pairs: usize,
    pub(super) threads: usize,
}

/// What both sides prune, and on what.
struct Lab<'a> {
    arguments: &'a RaceArguments,
    turns: Turns<'a>,
    moeprune: PathBuf,
    folder: tempfile::TempDir,
}

pub(super) fn run(
    arguments: &RaceArguments,
    peers: &[Peer],
    turns: Turns<'_>,
    terminal: &mut Terminal,
) -> Result<()> {
    ensure!(turns.pairs > 0 && turns.threads > 0, "nothing to run");
    let mut files = RunFiles::new();
    let json = files.claim_if_asked("--json", arguments.json.as_deref(), OutputKind::Report)?;
    let mut there = Vec::new();
    for &peer in peers {
        match arguments.find(peer, turns)? {
            Found::Python(python) => there.push((peer, python)),
            Found::Missing(why) => line!("skipped {}: {why}", peer.name())?,
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let moeprune = match &arguments.moeprune {
        Some(program) => program.canonicalize()?,
        None => environment::moeprune()?,
    };
    let lab = Lab { arguments, turns, moeprune, folder };
    lab.make_checkpoint(terminal)?;
    let mut outcome = Outcome::new(processor(), turns.threads, arguments.describe());
    for (peer, python) in &there {
        for &method in arguments.methods.iter().filter(|method| peer.has(**method)) {
            let rows = lab.race((*peer, python), method, terminal)?;
            outcome.rows.extend(rows);
        }
    }
    line!("{outcome}")?;
    if let Some(json) = json {
        json.write(|file| Ok(serde_json::to_writer_pretty(file, &outcome)?))?;
    }
    Ok(())
}

impl RaceArguments {
    fn find(&self, peer: Peer, turns: Turns<'_>) -> Result<Found> {
        match peer {
            Peer::LlmCompressor => environment::of_llm_compressor(turns.python, self.install),
            Peer::Reap => environment::of_reap(self.reap.as_deref(), &self.reap_python),
        }
    }

    fn share(&self, method: Method) -> f64 {
        match method {
            Method::Reap => self.expert_share,
            Method::Wanda | Method::Sparsegpt => self.weight_share,
        }
    }

    fn describe(&self) -> String {
        let Self { model, layers, experts, scale, samples, seq_len, peer_type, .. } = self;
        let sees = if self.peer_all_experts { ", all its experts on all tokens" } else { "" };
        format!(
            "{model}, {layers} layers of {experts} experts, widths by {scale}, random weights; {samples} blocks of {seq_len} \
             tokens; the peer in {peer_type}{sees}"
        )
    }
}

impl Lab<'_> {
    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_checkpoint(&self, terminal: &mut Terminal) -> Result<()> {
        let &RaceArguments { layers, experts, scale, vocab, samples, seq_len, .. } = self.arguments;
        let published: Published = self.arguments.model.parse()?;
        let reduction =
            Reduction { layers: Some(layers), experts: Some(experts), vocab: Some(vocab), scale };
        let shape = Shape::new(published, &reduction)?;
        let options = Options::default();
        write_checkpoint(&self.place("model"), &shape, &options, &mut |step| show(step, terminal))?;
        let mut file = BufWriter::new(File::create(self.place("tokens.jsonl"))?);
        let vocab = shape.spec().vocab;
        write_calibration_to(&mut file, samples, seq_len, vocab, options.seed)?;
        Ok(file.flush()?)
    }

    /// Ours and the peer's in turns, and what both kept.
    fn race(
        &self,
        (peer, python): (Peer, &Path),
        method: Method,
        terminal: &mut Terminal,
    ) -> Result<Vec<Row>> {
        let share = self.arguments.share(method);
        let ours = method.ours(share);
        let mut rows: Vec<Row> = ours
            .iter()
            .map(|(name, _)| Row::new(peer.name(), method.name(), name, share))
            .collect();
        for turn in 1..=self.turns.pairs {
            let mut taken = Vec::with_capacity(ours.len());
            for (name, options) in &ours {
                self.clear(name)?;
                taken.push(watch(&mut self.our_command(name, options), &self.place("log"))?);
            }
            self.clear("peer")?;
            let theirs = watch(&mut self.their_command(peer, python, method)?, &self.place("log"))?;
            let said: Value = serde_json::from_slice(&fs::read(self.place("peer.json"))?)
                .context("the peer's script wrote no JSON")?;
            for (row, ours) in rows.iter_mut().zip(taken) {
                row.pairs.push(Pair::new(ours, theirs, &said));
                row.versions.clone_from(&said["versions"]);
            }
            let (peer, method) = (peer.name(), method.name());
            terminal.note(&format!("{peer}, {method}: turn {turn} of {}", self.turns.pairs));
        }
        let said: Value = serde_json::from_slice(&fs::read(self.place("peer.json"))?)?;
        for (row, (name, _)) in rows.iter_mut().zip(&ours) {
            row.agreement = Some(match method {
                Method::Reap => Agreement::of_experts(&self.place(name), &said)?,
                Method::Wanda | Method::Sparsegpt => {
                    Agreement::of_masks(&self.place(name), &self.place("peer"))?
                }
            });
        }
        Ok(rows)
    }

    fn our_command(&self, name: &str, options: &[String]) -> Command {
        let RaceArguments { samples, seq_len, .. } = self.arguments;
        let mut command = pinned(&self.moeprune, self.turns.threads);
        command.args(["--quiet", "prune"]).arg(self.place("model")).arg(self.place(name));
        command.args(["--samples", &samples.to_string(), "--seq-len", &seq_len.to_string()]);
        command.arg("--calibration").arg(self.place("tokens.jsonl")).args(options);
        command.env("RAYON_NUM_THREADS", self.turns.threads.to_string());
        command
    }

    fn their_command(&self, peer: Peer, python: &Path, method: Method) -> Result<Command> {
        let script = self.place("peer.py");
        fs::write(&script, peer.script())?;
        let mut command = pinned(python, self.turns.threads);
        command.arg(script).arg(self.place("model")).arg(self.place("tokens.jsonl"));
        command.args([method.name(), &self.arguments.share(method).to_string()]);
        command.arg(&self.arguments.peer_type).arg(self.turns.threads.to_string());
        command.env("PEER_ALL_EXPERTS", u8::from(self.arguments.peer_all_experts).to_string());
        command.arg(self.place("peer")).current_dir(self.folder.path());
        command.envs(environment::variables(peer, self.arguments.reap.as_deref())?);
        command.env("HF_HUB_OFFLINE", "1").env("TOKENIZERS_PARALLELISM", "false");
        Ok(command)
    }

    /// Removes what an earlier turn wrote.
    fn clear(&self, name: &str) -> Result<()> {
        let folder = self.place(name);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }
}
