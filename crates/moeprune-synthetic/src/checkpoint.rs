//! A whole directory: config, index, shards.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use crate::{
    Error, Shape,
    shape::config_text,
    shards,
    source::Source,
    write::{self, Step},
};

/// Room left free on the disk.
const SPARE: u64 = 256 << 20;

/// How a shape is filled and laid out.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain choices with defaults")]
pub struct Options {
    /// Seed of the weights.
    pub seed: u64,
    /// Tensor bytes in a file; a larger tensor has its own file.
    pub max_shard_bytes: u64,
    /// Routers and norms only; everything else is a hole, which reads as zeros.
    pub sparse: bool,
}

impl Default for Options {
    /// Seed 0, files of 5 GB, no holes.
    fn default() -> Self {
        Self { seed: 0, max_shard_bytes: 5_000_000_000, sparse: false }
    }
}

/// Bytes that the weights of a checkpoint take on a disk.
#[must_use]
pub fn disk_bytes(shape: &Shape, options: &Options) -> u64 {
    let shards = shards::plan(shape.tensors.clone(), options.max_shard_bytes);
    source(shape, options).disk_bytes(&shards)
}

/// Writes `shape` with random weights to the folder `out`, whose parents are created. Returns the
/// number of files with weights.
///
/// It is written into a hidden sibling that gets its name when it is complete and durable.
/// `progress` is called with every step, by one thread at a time.
///
/// # Errors
/// If `out` exists, the disk has no room, or writing fails; nothing is left behind then.
pub fn write_checkpoint(
    out: &Path,
    shape: &Shape,
    options: &Options,
    progress: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<usize, Error> {
    let exists = || Err(Error::Exists { path: out.to_owned() });
    let Some(name) = out.file_name() else { return Err(Error::Name { path: out.to_owned() }) };
    if out.symlink_metadata().is_ok() {
        return exists();
    }
    let shards = shards::plan(shape.tensors.clone(), options.max_shard_bytes);
    let source = source(shape, options);
    let parent =
        out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    check_room(parent, source.disk_bytes(&shards))?;
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(Error::io("create a folder in", parent))?;
    let write_text = |name: &str, text: String| {
        let path = partial.path().join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))
    };
    write_text("config.json", config_text(&shape.config))?;
    if let Some(index) = shards::index(&shards) {
        write_text(shards::INDEX, index)?;
    }
    write::write(partial.path(), &shards, source, progress)?;
    if out.symlink_metadata().is_ok() {
        return exists();
    }
    fs::rename(partial.path(), out).map_err(Error::io("name", out))?;
    // There is nothing left under its name to be removed.
    let _ = partial.keep();
    Ok(shards.len())
}

fn source(shape: &Shape, options: &Options) -> Source {
    let spec = shape.spec();
    let experts = spec.layers.iter().filter_map(|l| l.moe()).map(|moe| moe.experts).max();
    let &Options { seed, sparse, .. } = options;
    Source { seed, experts: experts.unwrap_or_default(), norms: spec.norm_weights, sparse }
}

fn check_room(dir: &Path, needed: u64) -> Result<(), Error> {
    let disk = rustix::fs::statvfs(dir).map_err(|e| Error::io("ask", dir)(e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(SPARE);
    if needed <= free { Ok(()) } else { Err(Error::Room { dir: dir.to_owned(), free, needed }) }
}

#[cfg(test)]
mod tests {
    use moeprune_checkpoint::{Checkpoint, StoredTensor, check_finite};
    use moeprune_core::{LinearId, MlpProjection, TensorId, TensorSource as _};

    use super::*;
    use crate::{Published, Reduction};

    const TINY: Reduction =
        Reduction { layers: Some(2), experts: Some(12), vocab: Some(64), scale: 128 };

    fn tiny(family: Published, seed: u64, max_shard_bytes: u64) -> (tempfile::TempDir, Shape) {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::new(family, &TINY).unwrap();
        let options = Options { seed, max_shard_bytes, sparse: false };
        write_checkpoint(&dir.path().join("out"), &shape, &options, &mut |_| {}).unwrap();
        (dir, shape)
    }

    fn all_weights(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let checkpoint = Checkpoint::open(&dir.join("out")).unwrap();
        let weights = |t: &StoredTensor| {
            let tensor = checkpoint.tensor_by_name(&t.name).unwrap();
            check_finite(&t.name, &tensor).unwrap();
            (t.name.clone(), tensor.bytes().to_vec())
        };
        checkpoint.tensors().map(weights).collect()
    }

    #[test]
    fn opens_as_what_it_is() {
        for family in [Published::Arctic, Published::Mixtral] {
            let (dir, shape) = tiny(family, 0, 100_000);
            let checkpoint = Checkpoint::open(&dir.path().join("out")).unwrap();
            assert_eq!(checkpoint.spec(), shape.spec());
            let options = Options { max_shard_bytes: 100_000, ..Options::default() };
            assert_eq!(checkpoint.weight_bytes(), disk_bytes(&shape, &options));
            assert!(checkpoint.weight_bytes() > shape.weight_bytes());
            assert!(checkpoint.max_shard_bytes() <= 100_000);
        }
    }

    #[test]
    fn progress_is_of_every_byte_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::new(Published::Arctic, &TINY).unwrap();
        let options = Options { max_shard_bytes: 100_000, ..Options::default() };
        let (mut bytes, mut files) = (0, 0);
        let written =
            write_checkpoint(&dir.path().join("out"), &shape, &options, &mut |step| match step {
                Step::Writing { done, total, .. } => {
                    bytes = bytes.max(done);
                    assert_eq!(total, shape.weight_bytes());
                }
                Step::Flushing { done, total } => {
                    files = done;
                    assert!(done <= total);
                }
            });
        let written = written.unwrap();
        assert!(written > 2 && files == written, "{written} {files}");
        assert_eq!(bytes, shape.weight_bytes());
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
        let (dir, shape) = tiny(Published::Mixtral, 0, u64::MAX);
        let options = Options { max_shard_bytes: u64::MAX, sparse: true, ..Options::default() };
        let holes = dir.path().join("holes");
        write_checkpoint(&holes, &shape, &options, &mut |_| {}).unwrap();
        assert!(disk_bytes(&shape, &options) < shape.weight_bytes() / 10);
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
        let (dir, shape) = tiny(Published::Arctic, 0, u64::MAX);
        let before = all_weights(dir.path());
        let options = Options { seed: 1, ..Options::default() };
        let again = write_checkpoint(&dir.path().join("out"), &shape, &options, &mut |_| {});
        assert!(matches!(again, Err(Error::Exists { .. })));
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
}
