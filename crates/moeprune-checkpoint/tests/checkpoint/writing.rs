//! The writer: what it writes is what was put, the public reader reads it, twice is the same.

use std::{fs, path::Path};

use moeprune_checkpoint::{Checkpoint, PlannedTensor, ShardedWriter};
use moeprune_core::{Dtype, TensorBytes, TensorSink};
use proptest::prelude::*;

use crate::fixture::{Model, PARITY, check_refused, contents, parity, planned};

/// Writes all tensors of a checkpoint again, with its config.
fn rewrite(source: &Checkpoint, to: &Path, max_shard_bytes: u64) {
    fs::create_dir(to).expect("creates");
    fs::write(to.join("config.json"), source.config_text()).expect("writes");
    let plan = source.tensors().map(|t| planned(&t.name, t.dtype, &t.shape)).collect();
    let mut writer = ShardedWriter::create(to, max_shard_bytes, plan).expect("plans");
    for tensor in source.tensors() {
        let bytes = source.tensor_by_name(&tensor.name).expect("reads");
        writer.put(&tensor.name, &bytes).expect("puts");
    }
    let planned_bytes = writer.planned_bytes();
    let written = writer.finish().expect("finishes");
    assert_eq!(written.bytes, planned_bytes);
    let on_disk: u64 =
        written.files.iter().map(|f| fs::metadata(to.join(f)).expect("is there").len()).sum();
    assert_eq!(written.bytes, on_disk);
    assert_eq!(written.tensors, source.tensors().count());
}

#[test]
fn parity_models_survive_a_round_trip() {
    for name in PARITY {
        let source = Checkpoint::open(&parity(name)).expect("opens");
        for limit in [source.max_shard_bytes(), 100_000, u64::MAX] {
            let root = tempfile::tempdir().expect("temporary directory");
            let (first, second) = (root.path().join("1"), root.path().join("2"));
            rewrite(&source, &first, limit);
            rewrite(&source, &second, limit);
            assert_eq!(contents(&first), contents(&second), "bytes must be reproducible");
            let again = Checkpoint::open(&first).expect("opens");
            assert_eq!(again.spec(), source.spec());
            assert_eq!(again.fingerprint().expect("reads"), source.fingerprint().expect("reads"));
            assert!(again.max_shard_bytes() <= limit);
            for tensor in source.tensors() {
                let (a, b) =
                    (source.tensor_by_name(&tensor.name), again.tensor_by_name(&tensor.name));
                assert_eq!(a.expect("reads"), b.expect("reads"));
            }
        }
    }
}

#[test]
fn a_single_file_stays_one_and_is_byte_for_byte_the_source() {
    for name in ["arctic", "arctic_freq2", "mixtral"] {
        let source = Checkpoint::open(&parity(name)).expect("opens");
        let root = tempfile::tempdir().expect("temporary directory");
        let out = root.path().join("out");
        rewrite(&source, &out, source.max_shard_bytes());
        let ours = fs::read(out.join("model.safetensors")).expect("reads");
        let theirs = fs::read(parity(name).join("model.safetensors")).expect("reads");
        assert!(ours == theirs, "{name}: written by the public library in the same order");
    }
}

#[test]
fn index_and_names_of_shards() {
    let source = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    let root = tempfile::tempdir().expect("temporary directory");
    let out = root.path().join("out");
    rewrite(&source, &out, 400_000);
    let files: Vec<String> = contents(&out).into_keys().collect();
    assert_eq!(
        files,
        [
            "config.json",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json",
        ]
    );
    let text = fs::read_to_string(out.join("model.safetensors.index.json")).expect("reads");
    let beginning = "{\n  \"metadata\": {\n    \"total_size\": 1027968\n  },\n  \"weight_map\": {\n    \
                     \"lm_head.weight\": \"model-00001-of-00003.safetensors\",\n";
    assert!(text.starts_with(beginning), "{text:.200}");
}

#[test]
fn a_large_tensor_has_a_shard_of_its_own() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let plan: Vec<_> = [2, 9, 1, 1]
        .iter()
        .zip(["a", "b", "c", "d"])
        .map(|(&n, name)| planned(name, Dtype::U8, &[n]))
        .collect();
    let mut writer = ShardedWriter::create(dir.path(), 4, plan.clone()).expect("plans");
    for tensor in &plan {
        let bytes = vec![7; tensor.shape[0]];
        let tensor_bytes = TensorBytes::new(Dtype::U8, tensor.shape.clone(), bytes).expect("fits");
        writer.put(&tensor.name, &tensor_bytes).expect("puts");
    }
    let written = writer.finish().expect("finishes");
    assert_eq!(written.files.len(), 3);
    assert_eq!((written.tensors, written.tensor_bytes), (4, 13));
}

#[test]
fn only_what_was_announced_and_once() {
    let create = || {
        let dir = tempfile::tempdir().expect("temporary directory");
        let plan = vec![planned("a", Dtype::U8, &[1]), planned("b", Dtype::U8, &[1])];
        let writer = ShardedWriter::create(dir.path(), 100, plan).expect("plans");
        (dir, writer)
    };
    let byte = TensorBytes::new(Dtype::U8, [1], vec![1]).expect("fits");
    let refused =
        |writer: &mut ShardedWriter, name: &str, tensor: &TensorBytes<'_>, expected: &str| {
            let message = writer.put(name, tensor).expect_err("refused").to_string();
            assert!(message.contains(expected), "{message}");
        };
    let (_dir, mut writer) = create();
    let two = TensorBytes::new(Dtype::U8, [2], vec![1, 2]).expect("fits");
    refused(&mut writer, "a", &two, "`a` was announced as U8 [1] but is U8 [2]");
    let signed = TensorBytes::new(Dtype::I8, [1], vec![1]).expect("fits");
    refused(&mut writer, "a", &signed, "but is I8 [1]");
    writer.put("a", &byte).expect("puts");
    refused(&mut writer, "a", &byte, "`a` is written already");
    check_refused(writer.finish(), &["finished after 1 of 2 tensors; `b` is missing"]);

    let (dir, mut writer) = create();
    writer.put("a", &byte).expect("puts");
    writer.put("b", &byte).expect("puts");
    refused(&mut writer, "c", &byte, "`c` was not announced");
    writer.finish().expect("finishes");
    let again = vec![planned("a", Dtype::U8, &[1])];
    let mut writer = ShardedWriter::create(dir.path(), 100, again).expect("plans");
    refused(&mut writer, "a", &byte, "cannot create");

    let create = |plan: Vec<PlannedTensor>| ShardedWriter::create(Path::new("/nowhere"), 1, plan);
    check_refused(create(Vec::new()), &["no tensors were announced"]);
    let twice = vec![planned("a", Dtype::U8, &[1]), planned("a", Dtype::U8, &[2])];
    check_refused(create(twice), &["`a` is announced twice"]);
    check_refused(create(vec![planned("__metadata__", Dtype::U8, &[1])]), &["__metadata__"]);
    check_refused(create(vec![planned("a", Dtype::F4, &[3])]), &["no whole number of bytes"]);
    check_refused(create(vec![planned("a", Dtype::U8, &[usize::MAX, 2])]), &["no whole number"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random tensors beside those of a small model come back through both readers.
    #[test]
    fn random_tensors_come_back(
        extra in prop::collection::btree_map(
            "extra[ -~é😀]{0,6}",
            (prop::sample::select(Dtype::ALL.to_vec()), prop::collection::vec(0..5_usize, 0..4)),
            0..8,
        ),
        limit in prop::sample::select(vec![1, 40, 200, 1 << 20]),
        seed: u8,
    ) {
        let extra: Vec<(PlannedTensor, Vec<u8>)> = extra
            .into_iter()
            .filter_map(|(name, (dtype, shape))| {
                let bytes = dtype.bytes_of_shape(&shape)?;
                let bytes = (0..bytes).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
                Some((PlannedTensor { name, dtype, shape }, bytes))
            })
            .collect();
        let model = Model::tiny(&extra, limit);
        let checkpoint = model.open().expect("opens");
        for (tensor, bytes) in &extra {
            let got = checkpoint.tensor_by_name(&tensor.name).expect("reads");
            prop_assert_eq!(got.dtype(), tensor.dtype);
            prop_assert_eq!(got.shape(), &tensor.shape);
            prop_assert_eq!(got.bytes(), &bytes[..]);
        }
        let mut theirs = 0;
        for file in checkpoint.shard_files() {
            let bytes = fs::read(model.path(file)).expect("reads");
            let parsed = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
            for (name, view) in parsed.iter() {
                let ours = checkpoint.tensor_by_name(name).expect("reads");
                prop_assert_eq!(view.data(), ours.bytes());
            }
            theirs += parsed.len();
        }
        prop_assert_eq!(theirs, checkpoint.tensors().count());
    }
}
