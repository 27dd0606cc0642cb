//! `cargo xtask make-checkpoint`: a model of a published form and any size, with random weights.

mod calibration;
mod random;
mod shape;
mod shards;
mod weights;
mod write;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use moeprune::cli::{Terminal, bytes, seconds};

use self::{
    shape::{Published, Reduction, Shape},
    shards::Shard,
    write::Source,
};

/// Room left free on the disk.
const SPARE: u64 = 256 << 20;

/// Write a checkpoint of a published model's names and shapes with random weights
///
/// Without options that reduce it, the model has its true size: 957 GB for Arctic. The weights
/// depend on the seed and on nothing else: not on threads, shards or the size of the disk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask make-checkpoint --family arctic --layers 2 --experts 32 --scale 4 /tmp/arctic-small
  cargo xtask make-checkpoint --family mixtral --scale 8 /tmp/mixtral-small \\
      --calibration /tmp/mixtral-small.jsonl --samples 16 --seq-len 128
  cargo xtask make-checkpoint --family arctic --sparse /tmp/arctic-headers")]
pub(crate) struct MakeCheckpointArgs {
    /// Which model's form
    #[arg(long, value_enum, value_name = "FAMILY")]
    family: Published,
    /// Directory to write; must not exist
    out: PathBuf,
    /// Decoder layers [default: as published]
    #[arg(long, value_name = "K")]
    layers: Option<usize>,
    /// Experts in each layer [default: as published]
    #[arg(long, value_name = "E")]
    experts: Option<usize>,
    /// Divide every width by this
    #[arg(long, value_name = "F", default_value_t = 1)]
    scale: usize,
    /// Rows of the embedding [default: as published]
    #[arg(long, value_name = "V")]
    vocab: Option<usize>,
    /// Seed of weights and calibration tokens
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Tensor bytes in a file
    #[arg(long, value_name = "N", default_value_t = 5_000_000_000)]
    max_shard_bytes: u64,
    /// Write routers and norms only and leave holes (zeros) for everything else, so that
    /// `inspect` and `plan` can be tried on a model larger than the disk
    #[arg(long)]
    sparse: bool,
    /// Also write calibration blocks of random tokens to this file; must not exist
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 128, requires = "calibration")]
    samples: usize,
    /// Tokens in a calibration block
    #[arg(long, value_name = "T", default_value_t = 2048, requires = "calibration")]
    seq_len: usize,
    /// Print results and errors only
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &MakeCheckpointArgs) -> Result<()> {
    for path in [Some(&args.out), args.calibration.as_ref()].into_iter().flatten() {
        let there = path.symlink_metadata().is_ok();
        ensure!(!there, "{} exists; remove it or choose another name", path.display());
    }
    let began = Instant::now();
    let &MakeCheckpointArgs { layers, experts, vocab, scale, seed, sparse, .. } = args;
    let shape = Shape::new(args.family, &Reduction { layers, experts, vocab, scale })?;
    let shards = shards::plan(shape.tensors()?, args.max_shard_bytes)?;
    let experts = shape.spec.layers.iter().filter_map(|l| l.moe()).map(|m| m.experts).max();
    let source = Source { seed, experts: experts.unwrap_or_default(), sparse };
    write_whole(&args.out, &shape, &shards, source, &mut Terminal::new(args.quiet))?;
    if let Some(path) = &args.calibration {
        let &MakeCheckpointArgs { samples, seq_len, .. } = args;
        calibration::write(path, samples, seq_len, shape.spec.vocab, seed)?;
    }
    let written = source.disk_bytes(&shards);
    let size = shards.iter().map(Shard::bytes).sum();
    let time = began.elapsed().as_secs_f64();
    println!(
        "wrote {} ({} bytes) of weights{} in {} file{} to {} in {}, {}/s",
        bytes(written),
        written,
        if sparse { format!(", {} with the holes,", bytes(size)) } else { String::new() },
        shards.len(),
        if shards.len() == 1 { "" } else { "s" },
        args.out.display(),
        seconds(time),
        bytes((written as f64 / time) as u64)
    );
    Ok(())
}

/// Writes into a hidden sibling and gives it its name when it is complete.
fn write_whole(
    out: &Path,
    shape: &Shape,
    shards: &[Shard],
    source: Source,
    terminal: &mut Terminal,
) -> Result<()> {
    let Some(name) = out.file_name() else { bail!("{} is no name for a folder", out.display()) };
    let parent =
        out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    check_room(parent, source.disk_bytes(shards))?;
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    let write_text = |name: &str, text: &str| {
        let path = partial.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write_text("config.json", &format!("{}\n", serde_json::to_string_pretty(&shape.config)?))?;
    if let Some(index) = shards::index(shards) {
        write_text("model.safetensors.index.json", &index)?;
    }
    write::write(partial.path(), shards, source, terminal)?;
    ensure!(out.symlink_metadata().is_err(), "{} has appeared meanwhile", out.display());
    fs::rename(partial.path(), out).with_context(|| format!("cannot name {}", out.display()))?;
    // There is nothing left under its name to be removed.
    let _ = partial.keep();
    Ok(())
}

fn check_room(dir: &Path, needed: u64) -> Result<()> {
    let disk = rustix::fs::statvfs(dir).with_context(|| format!("cannot ask {}", dir.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    ensure!(
        needed.saturating_add(SPARE) <= free,
        "{} has {} free, but the checkpoint takes {}; choose another disk, fewer --layers, fewer \
         --experts or a larger --scale",
        dir.display(),
        bytes(free),
        bytes(needed)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use moeprune::{
        checkpoint::Checkpoint,
        core::{LinearId, MlpProjection, TensorId, TensorSource as _},
    };

    use super::*;

    const TINY: Reduction =
        Reduction { layers: Some(2), experts: Some(12), vocab: Some(64), scale: 128 };

    fn tiny(family: Published, seed: u64, shard: u64) -> (tempfile::TempDir, Shape, Vec<Shard>) {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::new(family, &TINY).unwrap();
        let shards = shards::plan(shape.tensors().unwrap(), shard).unwrap();
        let source = Source { seed, experts: 12, sparse: false };
        write_whole(&dir.path().join("out"), &shape, &shards, source, &mut Terminal::new(true))
            .unwrap();
        (dir, shape, shards)
    }

    fn all_weights(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let checkpoint = Checkpoint::open(&dir.join("out")).unwrap();
        let weights = |t: &moeprune::checkpoint::StoredTensor| {
            let tensor = checkpoint.tensor_by_name(&t.name).unwrap();
            moeprune::checkpoint::check_finite(&t.name, &tensor).unwrap();
            (t.name.clone(), tensor.bytes().to_vec())
        };
        checkpoint.tensors().map(weights).collect()
    }

    #[test]
    fn opens_as_what_it_is() {
        for family in [Published::Arctic, Published::Mixtral] {
            let (dir, shape, shards) = tiny(family, 0, 100_000);
            assert!(shards.len() > 2);
            let checkpoint = Checkpoint::open(&dir.path().join("out")).unwrap();
            assert_eq!(checkpoint.spec(), &shape.spec);
            assert_eq!(checkpoint.weight_bytes(), shards.iter().map(Shard::bytes).sum::<u64>());
            assert!(checkpoint.max_shard_bytes() <= 100_000);
        }
    }

    #[test]
    fn weights_depend_on_the_seed_alone() {
        let weights = |seed, shard, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all_weights(tiny(Published::Arctic, seed, shard).0.path()))
        };
        let first = weights(7, u64::MAX, 1);
        assert!(first == weights(7, 50_000, 3), "threads or shards changed them");
        let other = weights(8, u64::MAX, 1);
        assert!(first.iter().zip(&other).all(|(a, b)| a.0 == b.0 && a.1 != b.1));
    }

    #[test]
    fn a_checkpoint_with_holes_routes_as_the_whole_one() {
        let (dir, shape, shards) = tiny(Published::Mixtral, 0, u64::MAX);
        let source = Source { seed: 0, experts: 12, sparse: true };
        let holes = dir.path().join("holes");
        write_whole(&holes, &shape, &shards, source, &mut Terminal::new(true)).unwrap();
        let [whole, holes] =
            [dir.path().join("out"), holes].map(|dir| Checkpoint::open(&dir).unwrap());
        assert_eq!(whole.weight_bytes(), holes.weight_bytes());
        assert_eq!(whole.fingerprint().unwrap(), holes.fingerprint().unwrap());
        let expert = TensorId::linear(0, LinearId::Expert(0, MlpProjection::Up));
        assert!(holes.tensor(expert).unwrap().bytes().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn some_experts_are_near_copies_and_none_are_copies() {
        let weights = all_weights(tiny(Published::Mixtral, 0, u64::MAX).0.path());
        let gate = |(name, bytes): &(String, Vec<u8>)| {
            let is = name.starts_with("model.layers.0.block") && name.ends_with(".w1.weight");
            is.then(|| bytes.clone())
        };
        let gates: Vec<Vec<u8>> = weights.iter().filter_map(gate).collect();
        assert_eq!(gates.len(), 12);
        let mut near = 0;
        for (i, a) in gates.iter().enumerate() {
            for b in &gates[..i] {
                let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                assert!(same < a.len());
                near += usize::from(2 * same > a.len());
            }
        }
        assert_eq!(near, 6, "two groups of three");
    }

    #[test]
    fn an_existing_place_is_refused() {
        let (dir, shape, shards) = tiny(Published::Arctic, 0, u64::MAX);
        let source = Source { seed: 1, experts: 12, sparse: false };
        let before = all_weights(dir.path());
        let again =
            write_whole(&dir.path().join("out"), &shape, &shards, source, &mut Terminal::new(true));
        assert!(again.is_err());
        assert!(before == all_weights(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_full_disk_is_noticed_before() {
        let dir = tempfile::tempdir().unwrap();
        check_room(dir.path(), 0).unwrap();
        let message = check_room(dir.path(), u64::MAX / 2).unwrap_err().to_string();
        assert!(message.contains("the checkpoint takes"), "{message}");
    }

    #[test]
    fn the_calibration_file_gives_the_blocks_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.jsonl");
        calibration::write(&path, 3, 20, 64, 0).unwrap();
        let text = moeprune::capture::open_calibration(&path).unwrap();
        let options = moeprune::capture::SamplingOptions { samples: 3, sequence_len: 20, seed: 0 };
        let blocks = moeprune::capture::token_blocks(&text, None, 64, &options).unwrap();
        assert_eq!(blocks.origin(), moeprune::capture::BlockOrigin::Given);
        assert_eq!(blocks.tokens(), 60);
    }
}
