//! Files, containers, sources and sinks against the suites of their traits, and models that are on
//! no disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moeprune::engine::Finite;
use moeprune_checkpoint::{Checkpoint, PlannedTensor, Safetensors, ShardedWriter};
use moeprune_core::{LinearId, MlpProjection, TensorBytes, TensorId};
use moeprune_files::{Access, LocalFiles, MemoryFiles};
use moeprune_tests::conformance::{
    container, files,
    tensors::{Named, check_sink, check_source},
};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(name)
}

fn local(name: &str, access: Access) -> LocalFiles {
    LocalFiles::open(&asset(name), access).unwrap()
}

fn in_memory(name: &str) -> MemoryFiles {
    MemoryFiles::copy_of(&local(name, Access::Read)).unwrap()
}

#[test]
fn local_files() {
    for access in [Access::MemoryMap, Access::Read] {
        files::check(&local("parity/mixtral_sharded", access));
    }
}

#[test]
#[cfg(unix)]
fn local_files_with_folders_links_and_nothing_in_them() {
    use std::{fs, os::unix::fs::symlink};
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    fs::create_dir_all(here.join("a/b")).unwrap();
    fs::write(folder.path().join("outside"), "?").unwrap();
    fs::write(here.join("empty"), "").unwrap();
    fs::write(here.join("a/b/c"), "content").unwrap();
    symlink("a/b/c", here.join("link")).unwrap();
    symlink("a/b", here.join("linked folder")).unwrap();
    symlink("../outside", here.join("out")).unwrap();
    symlink("nowhere", here.join("dangling")).unwrap();
    for access in [Access::MemoryMap, Access::Read] {
        files::check(&LocalFiles::open(&here, access).unwrap());
    }
}

#[test]
fn memory_files() {
    let mut memory = in_memory("parity/mixtral_sharded");
    memory.insert("a/b/c", "content");
    memory.insert("a/empty", "");
    files::check(&memory);
    files::check(&MemoryFiles::copy_of(&memory).unwrap());
}

#[test]
fn safetensors() {
    container::check(&Safetensors);
}

/// The same model three times: mapped, read, and on no disk.
fn opened(name: &str) -> [Checkpoint; 3] {
    let open = |access| Checkpoint::open_by(&asset(name), None, access).unwrap();
    let memory = Checkpoint::open_files(Arc::new(in_memory(name)), None).unwrap();
    [open(Access::MemoryMap), open(Access::Read), memory]
}

#[test]
fn checkpoints_are_sources() {
    let models = ["arctic", "mixtral_fused", "qwen3_moe_fused", "gpt_oss"];
    for checkpoint in models.into_iter().flat_map(|name| opened(&format!("parity/{name}"))) {
        let parts: Vec<TensorId> =
            checkpoint.spec().parts().into_iter().map(|part| part.id).collect();
        let expert = LinearId::Expert(99, MlpProjection::Up);
        let missing = [TensorId::linear(0, expert), TensorId::linear(99, LinearId::Router)];
        check_source(&checkpoint, &parts, &missing);
        check_source(&Finite(&checkpoint), &parts, &missing);
    }
}

#[test]
fn a_model_in_memory_is_the_model_on_disk() {
    for name in ["parity/arctic", "parity/mixtral_sharded", "nano"] {
        let [mapped, read, memory] = opened(name);
        assert!(memory.files().local_folder().is_none());
        for other in [read, memory] {
            assert_eq!(mapped.spec(), other.spec(), "{name}");
            assert_eq!(mapped.fingerprint().unwrap(), other.fingerprint().unwrap(), "{name}");
            assert_eq!(mapped.config_text(), other.config_text(), "{name}");
            assert_eq!(mapped.eos_token_ids().unwrap(), other.eos_token_ids().unwrap(), "{name}");
            assert!(mapped.tensors().eq(other.tensors()), "{name}");
            for tensor in mapped.tensors() {
                let of = |model: &Checkpoint| -> TensorBytes<'static> {
                    let bytes = model.tensor_by_name(&tensor.name).unwrap();
                    let (dtype, shape) = (bytes.dtype(), bytes.shape().to_vec());
                    TensorBytes::new(dtype, shape, bytes.into_bytes()).unwrap()
                };
                assert!(of(&mapped) == of(&other), "{name}: {}", tensor.name);
            }
        }
    }
}

#[test]
fn writers_are_sinks() {
    for limit in [1, 20, u64::MAX] {
        check_sink(|tensors| Writing::new(tensors, limit), Writing::finish);
    }
}

/// A writer, and the folder that it writes to.
struct Writing {
    writer: ShardedWriter,
    folder: tempfile::TempDir,
}

impl Writing {
    fn new(tensors: &[Named], limit: u64) -> Self {
        let planned = |(name, tensor): &Named| PlannedTensor {
            name: name.clone(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
        };
        let folder = tempfile::tempdir().unwrap();
        let plan = tensors.iter().map(planned).collect();
        let writer = ShardedWriter::create(folder.path(), limit, plan).unwrap();
        Self { writer, folder }
    }

    fn finish(self) -> Result<Vec<Named>, String> {
        use moeprune_checkpoint::Container as _;
        self.writer.finish().map_err(|e| e.to_string())?;
        let files = LocalFiles::open(self.folder.path(), Access::Read).unwrap();
        let contents = Safetensors.read(&files).unwrap();
        let tensor = |tensor: &moeprune_checkpoint::ContainedTensor| {
            let bytes = contents.files[tensor.file].read(tensor.range.clone()).unwrap();
            let bytes = bytes.into_owned();
            let tensor_bytes = TensorBytes::new(tensor.dtype, tensor.shape.clone(), bytes).unwrap();
            (tensor.name.clone(), tensor_bytes)
        };
        Ok(contents.tensors.iter().map(tensor).collect())
    }
}

impl moeprune_core::TensorSink for Writing {
    fn put(
        &mut self,
        name: &str,
        tensor: &TensorBytes<'_>,
    ) -> Result<(), moeprune_core::StageError> {
        self.writer.put(name, tensor)
    }
}
